package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"math"
	"sort"
	"time"
)

// Headers, commits and validators in the JSON of CometBFT's RPC, as docs/spec/answers.md bounds it.

const (
	maxValidators = 1000
	maxChainID    = 50
	maxAppHash    = 64
	maxPower      = 1152921504606846975
	flagAbsent    = 1
	flagCommit    = 2
	flagNil       = 3
)

type blockID struct {
	hash      []byte
	total     uint32
	partsHash []byte
}

type header struct {
	block, app      uint64
	chainID         string
	height          int64
	time            time.Time
	lastBlockID     blockID
	lastCommitHash  []byte
	dataHash        []byte
	validatorsHash  []byte
	nextHash        []byte
	consensusHash   []byte
	appHash         []byte
	lastResultsHash []byte
	evidenceHash    []byte
	proposer        []byte
}

type vote struct {
	flag      uint64
	address   []byte
	time      time.Time
	signature []byte
}

type commit struct {
	height  int64
	round   int32
	blockID blockID
	votes   []vote
}

type signedHeader struct {
	header
	commit commit
	hash   digest
}

type validator struct {
	address []byte
	key     ed25519.PublicKey
	power   int64
}

// A validatorSet is in its order: by descending power, then by ascending address.
type validatorSet struct {
	validators []validator
	total      int64
	hash       digest
}

func readSignedHeader(raw json.RawMessage) (*signedHeader, error) {
	parts, err := exactObject(raw, "header", "commit")
	if err != nil {
		return nil, err
	}
	found := &signedHeader{}
	if err := found.header.read(parts["header"]); err != nil {
		return nil, err
	}
	if err := found.commit.read(parts["commit"]); err != nil {
		return nil, err
	}
	found.hash = found.header.computeHash()
	return found, nil
}

func (h *header) read(raw json.RawMessage) error {
	parts, err := exactObject(raw, "version", "chain_id", "height", "time", "last_block_id", "last_commit_hash",
		"data_hash", "validators_hash", "next_validators_hash", "consensus_hash", "app_hash", "last_results_hash",
		"evidence_hash", "proposer_address")
	if err != nil {
		return err
	}
	if err := h.readVersion(parts["version"]); err != nil {
		return err
	}
	if h.chainID, err = readChainID(parts["chain_id"]); err != nil {
		return err
	}
	if h.height, err = readHeight(parts["height"]); err != nil {
		return err
	}
	if h.time, err = instant(parts["time"]); err != nil {
		return err
	}
	if err := h.lastBlockID.read(parts["last_block_id"]); err != nil {
		return err
	}
	if h.proposer, err = upperHex(parts["proposer_address"], 0, 20); err != nil {
		return err
	}
	return h.readHashes(parts)
}

func (h *header) readVersion(raw json.RawMessage) error {
	parts, err := exactObject(raw, "block", "app?")
	if err != nil {
		return err
	}
	if h.block, err = textNumber(parts["block"], maxNumber); err != nil {
		return err
	}
	if app, there := parts["app"]; there {
		h.app, err = textNumber(app, maxNumber)
	}
	return err
}

func (h *header) readHashes(parts object) error {
	for name, into := range map[string]*[]byte{
		"last_commit_hash": &h.lastCommitHash, "data_hash": &h.dataHash, "validators_hash": &h.validatorsHash,
		"next_validators_hash": &h.nextHash, "consensus_hash": &h.consensusHash,
		"last_results_hash": &h.lastResultsHash, "evidence_hash": &h.evidenceHash,
	} {
		found, err := upperHex(parts[name], 0, 32)
		if err != nil {
			return err
		}
		*into = found
	}
	found, err := upperHex(parts["app_hash"])
	if err == nil && len(found) > maxAppHash {
		err = malformed("an app hash is too long")
	}
	h.appHash = found
	return err
}

func readChainID(raw json.RawMessage) (string, error) {
	found, err := text(raw)
	if err != nil {
		return "", err
	}
	for _, character := range []byte(found) {
		if character < '!' || character > '~' {
			return "", malformed("a chain id is not visible ASCII")
		}
	}
	if len(found) < 1 || len(found) > maxChainID {
		return "", malformed("a chain id is empty or too long")
	}
	return found, nil
}

func readHeight(raw json.RawMessage) (int64, error) {
	found, err := textNumber(raw, maxNumber)
	return int64(found), err
}

func (b *blockID) read(raw json.RawMessage) error {
	outer, err := exactObject(raw, "hash", "parts")
	if err != nil {
		return err
	}
	parts, err := exactObject(outer["parts"], "total", "hash")
	if err != nil {
		return err
	}
	total, err := whole(string(parts["total"]), math.MaxInt32)
	if err != nil {
		return err
	}
	b.total = uint32(total)
	if b.hash, err = upperHex(outer["hash"], 0, 32); err != nil {
		return err
	}
	b.partsHash, err = upperHex(parts["hash"], 0, 32)
	return err
}

func (c *commit) read(raw json.RawMessage) error {
	parts, err := exactObject(raw, "height", "round", "block_id", "signatures")
	if err != nil {
		return err
	}
	if c.height, err = readHeight(parts["height"]); err != nil {
		return err
	}
	round, err := whole(string(parts["round"]), math.MaxInt32)
	if err != nil {
		return err
	}
	c.round = int32(round)
	if err := c.blockID.read(parts["block_id"]); err != nil {
		return err
	}
	list, err := readList(parts["signatures"], maxValidators)
	if err != nil {
		return err
	}
	c.votes = make([]vote, len(list))
	for place, item := range list {
		if err := c.votes[place].read(item); err != nil {
			return err
		}
	}
	return nil
}

func (v *vote) read(raw json.RawMessage) error {
	parts, err := exactObject(raw, "block_id_flag", "validator_address", "timestamp", "signature")
	if err != nil {
		return err
	}
	if v.flag, err = whole(string(parts["block_id_flag"]), flagNil); err != nil {
		return err
	}
	if v.address, err = upperHex(parts["validator_address"], 0, 20); err != nil {
		return err
	}
	if v.time, err = instant(parts["timestamp"]); err != nil {
		return err
	}
	if !isNull(parts["signature"]) {
		if v.signature, err = base64Bytes(parts["signature"], 88); err != nil {
			return err
		}
	}
	return v.checkForm()
}

func (v *vote) checkForm() error {
	switch v.flag {
	case flagAbsent:
		if len(v.address) > 0 || v.signature != nil || !v.time.IsZero() {
			return malformed("an absent vote says something")
		}
	case flagCommit, flagNil:
		if len(v.address) != 20 || len(v.signature) != ed25519.SignatureSize {
			return malformed("a vote has no address or no signature")
		}
	default:
		return malformed("an unknown flag of a vote")
	}
	return nil
}

// readValidators reads the JSON of a validator set. In a genesis file powers are called so, and there are names.
func readValidators(raw json.RawMessage, genesisFile bool) (*validatorSet, error) {
	list, err := readList(raw, maxValidators)
	if err != nil {
		return nil, err
	}
	found := &validatorSet{}
	for _, item := range list {
		one, err := readValidator(item, genesisFile)
		if err != nil {
			return nil, err
		}
		found.validators = append(found.validators, one)
	}
	return found, found.finish()
}

func readValidator(raw json.RawMessage, genesisFile bool) (validator, error) {
	names, power := []string{"address", "pub_key", "voting_power", "proposer_priority?"}, "voting_power"
	if genesisFile {
		names, power = []string{"address?", "pub_key", "power", "name?"}, "power"
	}
	parts, err := exactObject(raw, names...)
	if err != nil {
		return validator{}, err
	}
	pub, err := exactObject(parts["pub_key"], "type", "value")
	if err != nil {
		return validator{}, err
	}
	if name, err := text(pub["type"]); err != nil || name != "tendermint/PubKeyEd25519" {
		return validator{}, malformed("a validator's key of another type")
	}
	key, err := base64Bytes(pub["value"], 44)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return validator{}, malformed("a validator's key of another length")
	}
	if priority, there := parts["proposer_priority"]; there {
		if given, err := text(priority); err != nil || len(given) > 20 {
			return validator{}, malformed("a priority is no short text")
		}
	}
	most, err := textNumber(parts[power], maxNumber)
	if err != nil {
		return validator{}, err
	}
	hash := sha256.Sum256(key)
	if given, there := parts["address"]; there {
		if address, err := upperHex(given, 20); err != nil || !bytes.Equal(address, hash[:20]) {
			return validator{}, malformed("a validator's address is not that of its key")
		}
	}
	return validator{hash[:20], key, int64(most)}, nil
}

// finish brings a set into its order, checks it and computes its hash.
func (s *validatorSet) finish() error {
	if len(s.validators) == 0 {
		return malformed("a set without validators")
	}
	seen := map[string]bool{}
	for _, one := range s.validators {
		if seen[string(one.key)] || one.power < 1 || one.power > maxPower-s.total {
			return malformed("a validator twice, without power, or with too much of it")
		}
		seen[string(one.key)] = true
		s.total += one.power
	}
	sort.Slice(s.validators, func(i, j int) bool {
		one, other := s.validators[i], s.validators[j]
		if one.power != other.power {
			return one.power > other.power
		}
		return bytes.Compare(one.address, other.address) < 0
	})
	s.hash = s.computeHash()
	return nil
}
