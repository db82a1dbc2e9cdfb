package main

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Deterministic CBOR as docs/spec/encodings.md cuts it down. A reader takes exactly one encoding of each value.

const maxLevels = 8

type kind byte

const (
	kindUint kind = iota // major types, as far as they are taken
	kindNegative
	kindBytes
	kindText
	kindArray
	kindMap
	kindBool
	kindNull
)

// A value that was read. `raw` is its encoding; `names` are those of a map, whose values are `items`.
type value struct {
	kind   kind
	number uint64
	truth  bool
	data   []byte
	names  []string
	items  []value
	raw    []byte
}

type cborReader struct {
	rest []byte
}

func readCBOR(encoded []byte) (value, error) {
	reader := cborReader{encoded}
	found, err := reader.value(0)
	if err != nil {
		return value{}, err
	}
	if len(reader.rest) > 0 {
		return value{}, malformed("bytes after the CBOR")
	}
	return found, nil
}

func (r *cborReader) take(count uint64) ([]byte, error) {
	if count > uint64(len(r.rest)) {
		return nil, malformed("CBOR ends too early")
	}
	taken := r.rest[:count]
	r.rest = r.rest[count:]
	return taken, nil
}

// head reads a major type and its number, in the shortest form only.
func (r *cborReader) head() (byte, uint64, error) {
	first, err := r.take(1)
	if err != nil {
		return 0, 0, err
	}
	major, short := first[0]>>5, first[0]&31
	if short < 24 {
		return major, uint64(short), nil
	}
	if short > 27 || major == 7 {
		return 0, 0, malformed("an indefinite length, a float or a simple value in CBOR")
	}
	size := 1 << (short - 24)
	tail, err := r.take(uint64(size))
	if err != nil {
		return 0, 0, err
	}
	number := binary.BigEndian.Uint64(append(make([]byte, 8-size), tail...))
	least := []uint64{24, 1 << 8, 1 << 16, 1 << 32}[short-24]
	if number < least {
		return 0, 0, malformed("a number of CBOR is not in its shortest form")
	}
	return major, number, nil
}

func (r *cborReader) value(level int) (value, error) {
	start := r.rest
	major, number, err := r.head()
	if err != nil {
		return value{}, err
	}
	found := value{kind: kind(major), number: number}
	switch major {
	case 0, 1:
	case 2, 3:
		found.data, err = r.take(number)
		if err == nil && major == 3 && !utf8.Valid(found.data) {
			err = malformed("text in CBOR is not UTF-8")
		}
	case 4, 5:
		if level == maxLevels {
			return value{}, malformed("too many levels of CBOR")
		}
		err = r.content(&found, level+1)
	case 7:
		err = found.simple(number)
	default:
		err = malformed("a tag in CBOR")
	}
	found.raw = start[:len(start)-len(r.rest)]
	return found, err
}

func (v *value) simple(number uint64) error {
	switch number {
	case 20, 21:
		v.kind, v.truth = kindBool, number == 21
	case 22:
		v.kind = kindNull
	default:
		return malformed("a simple value in CBOR")
	}
	return nil
}

// content reads the items of an array or a map. Nothing is allocated for a count that the bytes do not bear out.
func (r *cborReader) content(into *value, level int) error {
	var before []byte
	for count := into.number; count > 0; count-- {
		if into.kind == kindMap {
			name, err := r.value(level)
			if err != nil {
				return err
			}
			if name.kind != kindText {
				return malformed("a key of a map in CBOR is no text")
			}
			if before != nil && bytes.Compare(before, name.raw) >= 0 {
				return malformed("keys of a map in CBOR are not in their order")
			}
			before = name.raw
			into.names = append(into.names, string(name.data))
		}
		item, err := r.value(level)
		if err != nil {
			return err
		}
		into.items = append(into.items, item)
	}
	return nil
}
