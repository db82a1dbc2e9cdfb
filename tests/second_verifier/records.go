package main

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Records of certificates and members, by the CDDL of docs/spec/encodings.md.

const maxFurther, maxFurtherItem, maxFurtherBytes, maxListed = 16, 1024, 4096, 256

type certificateRecord struct {
	status         string
	organization   string
	notBefore      uint64
	notAfter       uint64
	recordedHeight uint64
}

type memberRecord struct {
	admittedHeight uint64
	suspended      bool
}

var recordedStatuses = oneOf("valid", "suspended", "revoked")

var reasons = oneOf("unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation",
	"certificateHold", "removeFromCRL", "privilegeWithdrawn")

var memberKinds = oneOf("operator", "vendor", "service_provider", "ca")

// A rule says whether a value has its form.
type rule func(v value) bool

func isUint(v value) bool    { return v.kind == kindUint }
func isBool(v value) bool    { return v.kind == kindBool }
func isText(v value) bool    { return v.kind == kindText }
func isNothing(v value) bool { return v.kind == kindNull }
func isDigest(v value) bool  { return v.kind == kindBytes && len(v.data) == 32 }
func isSPKI(v value) bool    { return v.kind == kindBytes && len(v.data) >= 1 && len(v.data) <= 2048 }
func isAuthority(v value) bool {
	return v.kind == kindUint && v.number <= 2
}

func isName(v value) bool {
	characters := utf8.RuneCount(v.data)
	return v.kind == kindText && characters >= 1 && characters <= 64
}

func isRange(v value) bool {
	return v.kind == kindArray && len(v.items) == 2 && isText(v.items[0]) && isUint(v.items[1])
}

func oneOf(texts ...string) rule {
	return func(v value) bool {
		for _, one := range texts {
			if v.kind == kindText && string(v.data) == one {
				return true
			}
		}
		return false
	}
}

func orNull(r rule) rule { return func(v value) bool { return isNothing(v) || r(v) } }

func listOf(r rule) rule {
	return func(v value) bool {
		if v.kind != kindArray || len(v.items) > maxListed {
			return false
		}
		for _, item := range v.items {
			if !r(item) {
				return false
			}
		}
		return true
	}
}

var certificateForm = []rule{
	oneOf("certificate"), recordedStatuses, isName, isUint, isUint, isUint, isUint, isUint, orNull(reasons),
	isDigest, isAuthority, orNull(isDigest), orNull(isDigest),
}

var memberForm = []rule{
	oneOf("member"), isName, memberKinds, listOf(isText), listOf(isRange), listOf(isText), listOf(isDigest),
	listOf(isSPKI), isUint, isUint, isBool,
}

// The single numbers of a member: lists of at most so many, all full but the last.
const numbersItem, maxNumberItems, numbersOfItem = "!numbers-", 4, 60

// readItems reads an array of this form, and tells whether a further item in it must be understood and is not known.
func readItems(raw []byte, form []rule) ([]value, bool, error) {
	found, err := readCBOR(raw)
	if err != nil {
		return nil, false, err
	}
	if found.kind != kindArray || len(found.items) < len(form) || len(found.items) > len(form)+1 {
		return nil, false, malformed("a record has not as many items as it must")
	}
	for place, fits := range form {
		if !fits(found.items[place]) {
			return nil, false, malformed("an item of a record has not its form")
		}
	}
	if len(found.items) == len(form) {
		return found.items, false, nil
	}
	further := found.items[len(form)]
	must, err := readFurther(further)
	if err != nil {
		return found.items, must, err
	}
	isMember := string(found.items[0].data) == "member"
	unknown, err := readNumbers(further, isMember)
	if err == nil {
		var other bool
		other, err = readHeld(further, isMember)
		unknown = unknown || other
	}
	return found.items, must || unknown, err
}

// The mark of a member whose numbers may have leaves of their own, and the numbers that a certificate names by such leaves.
const byNumberItem, heldItem, maxHeld = "!by-number", "!numbers", 60

// readHeld reads these two items. It tells whether one of them is in a record of the other kind, where it is not known.
func readHeld(further value, isMember bool) (bool, error) {
	for place, name := range further.names {
		item := further.items[place]
		switch {
		case name == byNumberItem && !isMember, name == heldItem && isMember:
			return true, nil
		case name == byNumberItem && (item.kind != kindBool || !item.truth):
			return false, malformed("the mark of a member is not true")
		case name == heldItem:
			if err := checkHeld(item); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

func checkHeld(listed value) error {
	if listed.kind != kindArray || len(listed.items) < 1 || len(listed.items) > maxHeld {
		return malformed("a certificate's numbers are not a list of 1 to 60")
	}
	for place, number := range listed.items {
		if !isText(number) || !isNumber(number.data) {
			return malformed("a certificate's number has not 1 to 15 digits")
		}
		if place > 0 && bytes.Compare(listed.items[place-1].data, number.data) >= 0 {
			return malformed("a certificate's numbers do not ascend")
		}
	}
	return nil
}

func readFurther(further value) (bool, error) {
	count := len(further.names)
	if further.kind != kindMap || count < 1 || count > maxFurther || len(further.raw) > maxFurtherBytes {
		return false, malformed("no further items, or too many")
	}
	must := false
	for place, name := range further.names {
		if len(name) < 1 || len(name) > 64 || len(further.items[place].raw) > maxFurtherItem {
			return false, malformed("a further item is too long")
		}
		for _, character := range []byte(name) {
			if character < '!' || character > '~' {
				return false, malformed("a further item's name is not visible ASCII")
			}
		}
		known := strings.HasPrefix(name, numbersItem) || name == byNumberItem || name == heldItem
		must = must || name[0] == '!' && !known
	}
	return must, nil
}

// readNumbers reads the single numbers in a member's further items. It tells whether there are items of that name
// that it does not know; a certificate's record has none that are known.
func readNumbers(further value, isMember bool) (bool, error) {
	var items []value
	for place, name := range further.names {
		suffix, is := strings.CutPrefix(name, numbersItem)
		if !is {
			continue
		}
		number, err := strconv.Atoi(suffix)
		if !isMember || err != nil || number < 1 || number > maxNumberItems || suffix != strconv.Itoa(number) {
			return true, nil
		}
		if number != len(items)+1 {
			return false, malformed("single numbers are not counted from 1 on")
		}
		items = append(items, further.items[place])
	}
	for place, listed := range items {
		count, isLast := len(listed.items), place == len(items)-1
		if listed.kind != kindArray || count < 1 || count > numbersOfItem || !isLast && count < numbersOfItem {
			return false, malformed("single numbers are not divided as they must be")
		}
		for _, number := range listed.items {
			if !isText(number) || !isNumber(number.data) {
				return false, malformed("a single number has not 1 to 15 digits")
			}
		}
	}
	return false, nil
}

func isNumber(text []byte) bool {
	for _, digit := range text {
		if digit < '0' || digit > '9' {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 15
}

// newer turns a record that does not read into `newer-rules` where later rules may have written it.
func newer(app uint64, must bool, err error) error {
	switch {
	case err != nil && (app < 1 || app > newestRules):
		return refuse("newer-rules", "the record is of rules that this verifier does not know")
	case err != nil:
		return err
	case must:
		return refuse("newer-rules", "a further item must be understood, and is not known")
	}
	return nil
}

func readCertificateRecord(raw []byte, app uint64) (*certificateRecord, error) {
	items, must, err := readItems(raw, certificateForm)
	if err := newer(app, must, err); err != nil {
		return nil, err
	}
	return &certificateRecord{
		status: string(items[1].data), organization: string(items[2].data), notBefore: items[3].number,
		notAfter: items[4].number, recordedHeight: items[5].number,
	}, nil
}

func readMemberRecord(raw []byte, app uint64) (*memberRecord, error) {
	items, must, err := readItems(raw, memberForm)
	if err := newer(app, must, err); err != nil {
		return nil, err
	}
	return &memberRecord{admittedHeight: items[9].number, suspended: items[10].truth}, nil
}

// beginsAsCertificate tells whether a leaf's value says that it is a certificate's record, whether or not it reads:
// an array of 13 or 14 items, the first of them the text "certificate".
func beginsAsCertificate(raw []byte) bool {
	return bytes.HasPrefix(raw, []byte("\x8dkcertificate")) || bytes.HasPrefix(raw, []byte("\x8ekcertificate"))
}
