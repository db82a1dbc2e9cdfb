package main

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// CometBFT v0.38's protobuf encodings, as far as hashes and votes are over them, and its Merkle root (RFC 6962).

type protobuf struct {
	bytes []byte
}

func (p *protobuf) number(field int, value uint64) {
	if value != 0 {
		p.bytes = binary.AppendUvarint(p.bytes, uint64(field)<<3)
		p.bytes = binary.AppendUvarint(p.bytes, value)
	}
}

func (p *protobuf) fixed(field int, value int64) {
	if value != 0 {
		p.bytes = binary.AppendUvarint(p.bytes, uint64(field)<<3|1)
		p.bytes = binary.LittleEndian.AppendUint64(p.bytes, uint64(value))
	}
}

// data writes a field of bytes or text, which is left out when it is empty.
func (p *protobuf) data(field int, value []byte) {
	if len(value) > 0 {
		p.message(field, value)
	}
}

// message writes a message that is there even if it is empty.
func (p *protobuf) message(field int, value []byte) {
	p.bytes = binary.AppendUvarint(p.bytes, uint64(field)<<3|2)
	p.bytes = binary.AppendUvarint(p.bytes, uint64(len(value)))
	p.bytes = append(p.bytes, value...)
}

func timestamp(when time.Time) []byte {
	var p protobuf
	p.number(1, uint64(when.Unix()))
	p.number(2, uint64(when.Nanosecond()))
	return p.bytes
}

// encode gives a BlockID. A CanonicalBlockID has the same encoding.
func (b *blockID) encode() []byte {
	var parts, p protobuf
	parts.number(1, uint64(b.total))
	parts.data(2, b.partsHash)
	p.data(1, b.hash)
	p.message(2, parts.bytes)
	return p.bytes
}

func wrapped(value []byte) []byte {
	var p protobuf
	p.data(1, value)
	return p.bytes
}

func (h *header) computeHash() digest {
	var version, height protobuf
	version.number(1, h.block)
	version.number(2, h.app)
	height.number(1, uint64(h.height))
	return merkle([][]byte{
		version.bytes, wrapped([]byte(h.chainID)), height.bytes, timestamp(h.time), h.lastBlockID.encode(),
		wrapped(h.lastCommitHash), wrapped(h.dataHash), wrapped(h.validatorsHash), wrapped(h.nextHash),
		wrapped(h.consensusHash), wrapped(h.appHash), wrapped(h.lastResultsHash), wrapped(h.evidenceHash),
		wrapped(h.proposer),
	})
}

func (s *validatorSet) computeHash() digest {
	leaves := make([][]byte, len(s.validators))
	for place, one := range s.validators {
		var key, p protobuf
		key.data(1, one.key)
		p.message(1, key.bytes)
		p.number(2, uint64(one.power))
		leaves[place] = p.bytes
	}
	return merkle(leaves)
}

func merkle(leaves [][]byte) digest {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	}
	split := 1
	for split*2 < len(leaves) {
		split *= 2
	}
	return join(1, merkle(leaves[:split]), merkle(leaves[split:]))
}

// signed gives the bytes that a vote's signature is over: the length-delimited CanonicalVote of a precommit.
func (c *commit) signed(chainID string, one *vote) []byte {
	var p protobuf
	p.number(1, 2)
	p.fixed(2, c.height)
	p.fixed(3, int64(c.round))
	p.message(4, c.blockID.encode())
	p.message(5, timestamp(one.time))
	p.data(6, []byte(chainID))
	return append(binary.AppendUvarint(nil, uint64(len(p.bytes))), p.bytes...)
}
