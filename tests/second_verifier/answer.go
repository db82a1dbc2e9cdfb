package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"time"
)

// The judgement of an answer about one certificate, by the steps of docs/spec/answers.md.

const (
	maxAnswer     = 262144
	maxListAnswer = 16777216
	maxClockAhead = 10 * time.Second

	maxRecordText      = 12288
	maxProofText       = 16582
	maxCertificateText = 16384
	maxLeafText        = 262144
)

// A judge is a verifier with one question.
type judge struct {
	client    *lightClient
	ask       source
	now       time.Time
	maxAge    time.Duration
	minHeight int64
}

// A state is the tree of a header that is trusted.
type state struct {
	root digest
	app  uint64
}

// open is steps 1 to 3: the answer's members by name, and the state that its header proves.
func (j *judge) open(raw []byte, most int, form func(object) error, names ...string) (object, *state, error) {
	if len(raw) > most {
		return nil, nil, malformed("the answer is too long")
	}
	parts, err := readObject(raw)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range append(names, "signed_header") {
		if _, there := parts[name]; !there {
			return nil, nil, malformed(name + " is missing")
		}
	}
	if err := form(parts); err != nil {
		return nil, nil, err
	}
	h, err := readSignedHeader(parts["signed_header"])
	if err != nil {
		return nil, nil, err
	}
	way := approach{client: j.client, ask: j.ask, now: j.now}
	if err := way.verify(h, j.minHeight); err != nil {
		return nil, nil, ofAnswer(err)
	}
	if err := j.checkFresh(h); err != nil {
		return nil, nil, err
	}
	if len(h.appHash) != len(empty) {
		return nil, nil, unproven("the header has no state")
	}
	return parts, &state{digest(h.appHash), h.app}, nil
}

// ofAnswer turns the error of a header into that of the answer.
func ofAnswer(err error) error {
	switch code := codeOf(err); code {
	case "fork", "newer-rules", "malformed", "unreachable", "internal":
		return err
	case "future":
		return refuse("clock", err.Error())
	default:
		return unproven(err.Error())
	}
}

func (j *judge) checkFresh(h *signedHeader) error {
	age := j.now.Sub(h.time)
	if age < -maxClockAhead {
		return refuse("clock", "the header is from the future")
	}
	if age > j.maxAge {
		return refuse("stale", "the header is too old")
	}
	return nil
}

// leaf is step 4: the value under the key, or nil where the tree has none.
func (s *state) leaf(key digest, valueText json.RawMessage, most int, proofText json.RawMessage) ([]byte, error) {
	encoded, err := base64Bytes(proofText, maxProofText)
	if err != nil {
		return nil, err
	}
	path, err := readProof(encoded)
	if err != nil {
		return nil, err
	}
	if isNull(valueText) {
		return nil, path.checkAbsent(s.root, key)
	}
	found, err := base64Bytes(valueText, most)
	if err != nil {
		return nil, err
	}
	return found, path.checkPresent(s.root, key, sha256.Sum256(found))
}

func anyForm(object) error { return nil }

// checkForm is the rest of step 1: the types of what an answer about one certificate holds.
func checkForm(parts object) error {
	if _, err := text(parts["record"]); err != nil && !isNull(parts["record"]) {
		return err
	}
	if _, err := text(parts["proof"]); err != nil {
		return err
	}
	if given, there := parts["certificate"]; there && !isNull(given) {
		if _, err := text(given); err != nil {
			return err
		}
	}
	if member := parts["member"]; !isNull(member) {
		return checkMemberForm(member)
	}
	return nil
}

func checkMemberForm(raw json.RawMessage) error {
	parts, err := readObject(raw)
	if err != nil {
		return err
	}
	if _, err := text(parts["record"]); err != nil && !isNull(parts["record"]) {
		return err
	}
	_, err = text(parts["proof"])
	return err
}

func (j *judge) answer(raw []byte, about digest, withCertificate bool) (string, error) {
	parts, tree, err := j.open(raw, maxAnswer, checkForm, "record", "proof", "member")
	if err != nil {
		return "", err
	}
	recorded, err := tree.leaf(about, parts["record"], maxRecordText, parts["proof"])
	if err != nil || isNull(parts["record"]) {
		return statusOf(nil, nil, j.now), err
	}
	record, err := readCertificateRecord(recorded, tree.app)
	if err != nil {
		return "", err
	}
	member, err := tree.member(record.organization, parts["member"])
	if err != nil {
		return "", err
	}
	if withCertificate {
		if err := checkCertificate(parts["certificate"], about); err != nil {
			return "", err
		}
	}
	return statusOf(record, member, j.now), nil
}

// member is step 6: the organisation's record, or nil where it is no member.
func (s *state) member(organization string, raw json.RawMessage) (*memberRecord, error) {
	value, err := s.memberLeaf(organization, raw)
	if err != nil || value == nil {
		return nil, err
	}
	return readMemberRecord(value, s.app)
}

func (s *state) memberLeaf(organization string, raw json.RawMessage) ([]byte, error) {
	parts, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte("voice-dpki/member/v1\x00" + organization))
	given, there := parts["record"]
	if !there {
		return nil, malformed("the member's record is missing")
	}
	return s.leaf(key, given, maxLeafText, parts["proof"])
}

func checkCertificate(raw json.RawMessage, about digest) error {
	given, err := base64Bytes(raw, maxCertificateText)
	if err != nil {
		return err
	}
	if hash := sha256.Sum256(given); !bytes.Equal(hash[:], about[:]) {
		return unproven("the certificate is another one")
	}
	return nil
}
