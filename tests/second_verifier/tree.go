package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// Proofs of presence and absence, by docs/spec/answers.md, "Tree proofs".

type digest [32]byte

const maxSiblings = 256

var empty digest

func join(prefix byte, left, right digest) digest {
	return sha256.Sum256(append(append([]byte{prefix}, left[:]...), right[:]...))
}

func leafHash(key, valueHash digest) digest { return join(0, key, valueHash) }

func bit(key []byte, depth int) byte { return key[depth/8] >> (7 - depth%8) & 1 }

func sameBits(one, other []byte, count int) bool {
	for depth := 0; depth < count; depth++ {
		if bit(one, depth) != bit(other, depth) {
			return false
		}
	}
	return true
}

// A proof is the path from the root to where a key is or would be. Siblings are in the order from the root down.
type proof struct {
	ends      bool // at a leaf
	key       digest
	valueHash digest
	siblings  []digest
}

func readProof(raw []byte) (*proof, error) {
	if len(raw) < 3 || raw[2] > 1 {
		return nil, malformed("no proof")
	}
	count := int(binary.BigEndian.Uint16(raw))
	found := &proof{ends: raw[2] == 1}
	rest := raw[3:]
	if found.ends {
		if len(rest) < 64 {
			return nil, malformed("a proof ends in its leaf")
		}
		copy(found.key[:], rest)
		copy(found.valueHash[:], rest[32:])
		rest = rest[64:]
	}
	if count > maxSiblings || len(rest) < (count+7)/8 {
		return nil, malformed("a proof has too many siblings, or ends in its bits")
	}
	return found, found.readSiblings(rest[:(count+7)/8], rest[(count+7)/8:], count)
}

func (p *proof) readSiblings(marks, rest []byte, count int) error {
	p.siblings = make([]digest, count)
	for depth := 0; depth < len(marks)*8; depth++ {
		switch {
		case bit(marks, depth) == 0:
		case depth >= count:
			return malformed("a spare bit of a proof is set")
		case len(rest) < 32:
			return malformed("a proof ends in its siblings")
		case bytes.Equal(rest[:32], empty[:]):
			return malformed("an empty sibling is written out")
		default:
			copy(p.siblings[depth][:], rest)
			rest = rest[32:]
		}
	}
	if len(rest) > 0 {
		return malformed("bytes after a proof")
	}
	return nil
}

// climb joins a subtree's hash with the siblings, along the bits of the key.
func (p *proof) climb(from digest, key []byte) digest {
	for depth := len(p.siblings) - 1; depth >= 0; depth-- {
		if bit(key, depth) == 0 {
			from = join(1, from, p.siblings[depth])
		} else {
			from = join(1, p.siblings[depth], from)
		}
	}
	return from
}

func (p *proof) checkPresent(root, key, valueHash digest) error {
	if !p.ends || p.key != key || p.valueHash != valueHash {
		return unproven("the proof is not of this leaf")
	}
	if p.climb(leafHash(key, valueHash), key[:]) != root {
		return unproven("the proof does not lead to the root")
	}
	return nil
}

func (p *proof) checkAbsent(root, key digest) error {
	end := empty
	if p.ends {
		if p.key == key || !sameBits(p.key[:], key[:], len(p.siblings)) {
			return unproven("the leaf at the proof's end does not show absence")
		}
		end = leafHash(p.key, p.valueHash)
	}
	if p.climb(end, key[:]) != root {
		return unproven("the proof does not lead to the root")
	}
	return nil
}

type leaf struct {
	key       digest
	valueHash digest
	value     []byte // nil if only the hash was given
	given     bool   // as one of the two
}

// subtree gives the hash of the subtree at this depth that has these leaves, ascending and no key twice.
func subtree(leaves []leaf, depth int) digest {
	switch len(leaves) {
	case 0:
		return empty
	case 1:
		return leafHash(leaves[0].key, leaves[0].valueHash)
	}
	right := 0
	for right < len(leaves) && bit(leaves[right].key[:], depth) == 0 {
		right++
	}
	return join(1, subtree(leaves[:right], depth+1), subtree(leaves[right:], depth+1))
}
