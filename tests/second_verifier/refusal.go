package main

import "errors"

// A refusal ends a judgement with a code of docs/spec/answers.md. The reason is for people.
type refusal struct {
	code string
	why  string
}

func (r *refusal) Error() string { return r.code + ": " + r.why }

func refuse(code, why string) error { return &refusal{code, why} }

func malformed(why string) error { return refuse("malformed", why) }

func unproven(why string) error { return refuse("unproven", why) }

// codeOf gives the code of a refusal. Any other error is a fault of this program.
func codeOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.code
	}
	return "internal"
}
