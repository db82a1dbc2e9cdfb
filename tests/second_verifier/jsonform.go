package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Go's own decoding into structs takes names in any case, names twice and bytes that are not UTF-8. The forms of
// docs/spec have one spelling, so objects are read member by member here.

type object map[string]json.RawMessage

func readObject(raw []byte) (object, error) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, malformed("no JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, malformed("no JSON object")
	}
	found := object{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, malformed("no JSON object")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, malformed("no JSON object")
		}
		key := name.(string) // json.Valid: members have names
		if _, twice := found[key]; twice {
			return nil, malformed("a member twice: " + key)
		}
		found[key] = value
	}
	return found, nil
}

// exactObject reads an object that has these members and no others; a name with "?" may be left out.
func exactObject(raw []byte, names ...string) (object, error) {
	found, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	known := 0
	for _, name := range names {
		plain := strings.TrimSuffix(name, "?")
		if _, there := found[plain]; there {
			known++
		} else if plain == name {
			return nil, malformed(name + " is missing")
		}
	}
	if known != len(found) {
		return nil, malformed("an unknown member")
	}
	return found, nil
}

func readList(raw []byte, most int) ([]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('[') {
		return nil, malformed("no list")
	}
	found := []json.RawMessage{}
	for dec.More() {
		if len(found) == most {
			return nil, malformed("a list is too long")
		}
		var item json.RawMessage
		if err := dec.Decode(&item); err != nil {
			return nil, malformed("no list")
		}
		found = append(found, item)
	}
	if _, err := dec.Token(); err != nil {
		return nil, malformed("no list")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, malformed("no list")
	}
	return found, nil
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

func text(raw json.RawMessage) (string, error) {
	var found string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &found) != nil {
		return "", malformed("no text")
	}
	return found, nil
}

// base64Bytes reads canonical base64. Go's decoder skips line breaks, so the text is compared with the one encoding.
func base64Bytes(raw json.RawMessage, most int) ([]byte, error) {
	given, err := text(raw)
	if err != nil {
		return nil, err
	}
	if len(given) > most {
		return nil, malformed("a text in base64 is too long")
	}
	found, err := base64.StdEncoding.DecodeString(given)
	if err != nil || base64.StdEncoding.EncodeToString(found) != given {
		return nil, malformed("no canonical base64")
	}
	return found, nil
}

func upperHex(raw json.RawMessage, sizes ...int) ([]byte, error) {
	given, err := text(raw)
	if err != nil {
		return nil, err
	}
	found, err := hex.DecodeString(given)
	if err != nil || strings.ToUpper(given) != given {
		return nil, malformed("no upper-case hexadecimal")
	}
	for _, size := range sizes {
		if len(found) == size {
			return found, nil
		}
	}
	if len(sizes) > 0 {
		return nil, malformed("a hash or an address of another length")
	}
	return found, nil
}

func digestOf(given string) (digest, error) {
	var key digest
	found, err := hex.DecodeString(given)
	if err != nil || len(found) != len(key) || strings.ToLower(given) != given {
		return key, malformed("no digest in hexadecimal")
	}
	copy(key[:], found)
	return key, nil
}

// maxNumber bounds every number of a header to 18 digits.
const maxNumber = 999999999999999999

// whole reads a number of at most `most` in decimal digits, without a sign or leading zeros.
func whole(given string, most uint64) (uint64, error) {
	found, err := strconv.ParseUint(given, 10, 64)
	if err != nil || found > most || strconv.FormatUint(found, 10) != given {
		return 0, malformed("no whole number within its limits")
	}
	return found, nil
}

func textNumber(raw json.RawMessage, most uint64) (uint64, error) {
	given, err := text(raw)
	if err != nil {
		return 0, err
	}
	return whole(given, most)
}

// instant reads RFC 3339 in UTC with as many decimals as needed, and no more than nine.
func instant(raw json.RawMessage) (time.Time, error) {
	given, err := text(raw)
	if err != nil {
		return time.Time{}, err
	}
	found, err := time.Parse(time.RFC3339Nano, given)
	if err != nil || found.UTC().Format(time.RFC3339Nano) != given {
		return time.Time{}, malformed("no time in its one form")
	}
	return found.UTC(), nil
}
