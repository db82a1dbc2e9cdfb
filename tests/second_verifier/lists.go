package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"sort"
	"strings"
)

// Answers about several certificates, about the certificates below a prefix, and about leaves.

const (
	maxDigests      = 1000
	maxPrefixLeaves = 1000
	maxKeys         = 64
)

func (j *judge) several(raw []byte, about []string) ([]string, error) {
	parts, tree, err := j.open(raw, maxListAnswer, anyForm, "entries", "members")
	if err != nil {
		return nil, err
	}
	entries, err := readList(parts["entries"], maxDigests)
	if err != nil {
		return nil, err
	}
	members, err := readObject(parts["members"])
	if err != nil {
		return nil, err
	}
	if len(entries) != len(about) {
		return nil, malformed("not as many entries as digests in the question")
	}
	found := []string{}
	for place, entry := range entries {
		key, leaf, err := tree.asked(entry, "digest", "record", maxRecordText, about[place])
		if err != nil {
			return nil, err
		}
		status := statusOf(nil, nil, j.now)
		if leaf != nil {
			if status, err = j.statusIn(tree, leaf, members); err != nil {
				return nil, refuse(codeOf(err), hex.EncodeToString(key[:])+": "+err.Error())
			}
		}
		found = append(found, status)
	}
	return found, nil
}

// asked reads an entry with its proof, which must be about this key.
func (s *state) asked(entry json.RawMessage, keyName, valueName string, most int, about string) (digest, []byte, error) {
	parts, err := readObject(entry)
	if err != nil {
		return digest{}, nil, err
	}
	if name, err := text(parts[keyName]); err != nil || name != about {
		return digest{}, nil, malformed("an entry is about something else than was asked")
	}
	key, err := digestOf(about)
	if err != nil {
		return key, nil, err
	}
	given, there := parts[valueName]
	if !there {
		return key, nil, malformed("an entry has no value")
	}
	found, err := s.leaf(key, given, most, parts["proof"])
	return key, found, err
}

// statusIn is steps 5, 6 and 8 for a record that is proved.
func (j *judge) statusIn(tree *state, recorded []byte, members object) (string, error) {
	record, err := readCertificateRecord(recorded, tree.app)
	if err != nil {
		return "", err
	}
	given, there := members[record.organization]
	if !there {
		return "", malformed("the member is not given")
	}
	member, err := tree.member(record.organization, given)
	if err != nil {
		return "", err
	}
	return statusOf(record, member, j.now), nil
}

// A shown prefix holds the status of each certificate below it, and the keys of what is not shown to be one.
type shown struct {
	Recorded map[string]string `json:"recorded"`
	NotShown []string          `json:"not_shown"`
}

func (j *judge) prefix(raw []byte, about string) (*shown, error) {
	parts, tree, err := j.open(raw, maxListAnswer, anyForm, "proof", "leaves", "members")
	if err != nil {
		return nil, err
	}
	leaves, err := readLeaves(parts["leaves"])
	if err != nil {
		return nil, err
	}
	members, err := readObject(parts["members"])
	if err != nil {
		return nil, err
	}
	if err := tree.checkPrefix(parts["proof"], leaves, about); err != nil {
		return nil, err
	}
	found := &shown{map[string]string{}, []string{}}
	for _, one := range leaves {
		name := hex.EncodeToString(one.key[:])
		if !strings.HasPrefix(name, about) {
			continue
		}
		if !beginsAsCertificate(one.value) {
			found.NotShown = append(found.NotShown, name)
		} else if found.Recorded[name], err = j.statusIn(tree, one.value, members); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func readLeaves(raw json.RawMessage) ([]leaf, error) {
	list, err := readList(raw, maxPrefixLeaves)
	if err != nil {
		return nil, err
	}
	byKey := map[digest]leaf{}
	for _, item := range list {
		one, err := readLeaf(item)
		if err != nil {
			return nil, err
		}
		if one.given {
			byKey[one.key] = one
		}
	}
	found := make([]leaf, 0, len(byKey))
	for _, one := range byKey {
		found = append(found, one)
	}
	sort.Slice(found, func(i, j int) bool { return bytes.Compare(found[i].key[:], found[j].key[:]) < 0 })
	return found, nil
}

func readLeaf(raw json.RawMessage) (leaf, error) {
	parts, err := readObject(raw)
	if err != nil {
		return leaf{}, err
	}
	name, err := text(parts["key"])
	if err != nil {
		return leaf{}, err
	}
	found := leaf{}
	if found.key, err = digestOf(name); err != nil {
		return leaf{}, err
	}
	value, isValue := parts["value"]
	hash, isHash := parts["hash"]
	found.given = isValue || isHash
	switch {
	case isValue:
		found.value, err = base64Bytes(value, maxLeafText)
		found.valueHash = sha256.Sum256(found.value)
	case isHash:
		var given []byte
		if given, err = base64Bytes(hash, 44); err == nil && len(given) != len(empty) {
			err = malformed("a leaf's hash has another length")
		}
		copy(found.valueHash[:], given)
	}
	return found, err
}

// checkPrefix checks that these leaves, which ascend, are all below the place that the proof leads to.
func (s *state) checkPrefix(proofText json.RawMessage, leaves []leaf, about string) error {
	encoded, err := base64Bytes(proofText, maxProofText)
	if err != nil {
		return err
	}
	path, err := readProof(encoded)
	if err != nil {
		return err
	}
	bits, err := hex.DecodeString(about + strings.Repeat("0", 64-len(about)))
	if err != nil {
		return malformed("no prefix")
	}
	depth := len(path.siblings)
	if depth > 4*len(about) || depth < 4*len(about) && len(leaves) > 1 {
		return unproven("the proof is of another place")
	}
	for _, one := range leaves {
		if !sameBits(one.key[:], bits, depth) {
			return unproven("a leaf is elsewhere")
		}
	}
	if path.climb(subtree(leaves, depth), bits) != s.root {
		return unproven("these are not all leaves below the prefix")
	}
	return nil
}

// leaves gives the values under the keys in base64, nil for those that are proved absent.
func (j *judge) leaves(raw []byte, about []string) ([]*string, error) {
	parts, tree, err := j.open(raw, maxListAnswer, anyForm, "leaves")
	if err != nil {
		return nil, err
	}
	entries, err := readList(parts["leaves"], maxKeys)
	if err != nil {
		return nil, err
	}
	if len(entries) != len(about) {
		return nil, malformed("not as many leaves as keys in the question")
	}
	found := make([]*string, len(about))
	for place, entry := range entries {
		_, value, err := tree.asked(entry, "key", "value", maxLeafText, about[place])
		if err != nil {
			return nil, err
		}
		found[place] = inBase64(value)
	}
	return found, nil
}

func (j *judge) memberOf(raw []byte, organization string) (*string, error) {
	parts, tree, err := j.open(raw, maxListAnswer, anyForm, "member")
	if err != nil {
		return nil, err
	}
	value, err := tree.memberLeaf(organization, parts["member"])
	return inBase64(value), err
}

func inBase64(value []byte) *string {
	if value == nil {
		return nil
	}
	text := base64.StdEncoding.EncodeToString(value)
	return &text
}
