// A second verifier of a ledger's answers, written from docs/spec alone: see README.md.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"time"
)

// A line of the input: a context, which later lines name, or a question with the answer that came.
type line struct {
	Context string `json:"context"`
	ID      int    `json:"id"`
	Kind    string `json:"kind"` // nothing for a context

	ChainID     string            `json:"chain_id"`
	Genesis     json.RawMessage   `json:"genesis"`      // {"time", "validators"}
	GenesisFile json.RawMessage   `json:"genesis_file"` // genesis.json
	Kept        json.RawMessage   `json:"kept"`         // a trust file
	Verified    []json.RawMessage `json:"verified"`     // headers that are verified first, from low to high
	Headers     []json.RawMessage `json:"headers"`      // what a node would give in a bisection

	Now       json.Number `json:"now_s"`
	MaxAge    json.Number `json:"max_age_s"`
	MinHeight int64       `json:"min_height"`

	Digest          string   `json:"digest"`
	Digests         []string `json:"digests"`
	Keys            []string `json:"keys"`
	Prefix          string   `json:"prefix"`
	Organization    string   `json:"organization"`
	WithCertificate bool     `json:"with_certificate"`
	WithValidators  bool     `json:"with_validators"`
	Answer          []byte   `json:"answer"` // base64 of the bytes that came

	Root      string `json:"root"`
	Key       string `json:"key"`
	ValueHash string `json:"value_hash"`
	Proof     []byte `json:"proof"`
}

type verdict struct {
	ID     int    `json:"id"`
	Result any    `json:"result"`
	Why    string `json:"why,omitempty"`
}

type context struct {
	client *lightClient
	ask    source
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	contexts := map[string]*context{}
	for {
		raw, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(raw)) > 0 {
			found, err := contextOrVerdict(contexts, raw)
			if err != nil {
				fmt.Fprintln(os.Stderr, "second verifier:", err)
				out.Flush()
				os.Exit(2)
			}
			written, _ := json.Marshal(found) // maps of texts and lists of texts always have a JSON form
			out.Write(append(written, '\n'))
		}
		if err != nil {
			return
		}
	}
}

// contextOrVerdict handles one line. An error is a fault of whoever wrote the line, never of an answer.
func contextOrVerdict(contexts map[string]*context, raw []byte) (*verdict, error) {
	var asked line
	if err := json.Unmarshal(raw, &asked); err != nil {
		return nil, err
	}
	if asked.Kind == "proof" {
		return asked.verdict(asked.judgeProof()), nil
	}
	now, err := seconds(asked.Now)
	if err != nil {
		return nil, err
	}
	if asked.Kind == "" {
		made, err := asked.makeContext(now)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", asked.Context, err)
		}
		contexts[asked.Context] = made
		return &verdict{Result: "context"}, nil
	}
	known := contexts[asked.Context]
	if known == nil {
		return nil, fmt.Errorf("there is no context %q", asked.Context)
	}
	return asked.judgeIn(known, now)
}

func (l *line) verdict(result any, err error) *verdict {
	if err != nil {
		return &verdict{l.ID, map[string]string{"error": codeOf(err)}, err.Error()}
	}
	return &verdict{ID: l.ID, Result: result}
}

func (l *line) judgeIn(known *context, now time.Time) (*verdict, error) {
	client := known.client.clone()
	switch l.Kind {
	case "header":
		return l.verdict(l.judgeHeader(client, now)), nil
	case "approach":
		return l.verdict(l.judgeApproach(client, known.ask, now)), nil
	}
	maxAge, err := seconds(l.MaxAge)
	if err != nil {
		return nil, err
	}
	j := &judge{client, known.ask, now, maxAge.Sub(time.Unix(0, 0)), l.MinHeight}
	switch l.Kind {
	case "answer":
		about, err := digestOf(l.Digest)
		if err != nil {
			return nil, err
		}
		status, err := j.answer(l.Answer, about, l.WithCertificate)
		return l.verdict(map[string]string{"status": status}, err), nil
	case "several":
		statuses, err := j.several(l.Answer, l.Digests)
		return l.verdict(map[string]any{"statuses": statuses}, err), nil
	case "prefix":
		found, err := j.prefix(l.Answer, l.Prefix)
		return l.verdict(found, err), nil
	case "leaves":
		values, err := j.leaves(l.Answer, l.Keys)
		return l.verdict(map[string]any{"values": values}, err), nil
	case "member":
		value, err := j.memberOf(l.Answer, l.Organization)
		return l.verdict(map[string]any{"value": value}, err), nil
	}
	return nil, fmt.Errorf("unknown kind %q", l.Kind)
}

func (l *line) judgeHeader(client *lightClient, now time.Time) (any, error) {
	h, set, err := readKept(l.Answer)
	if err != nil {
		return nil, err
	}
	if !l.WithValidators {
		set = nil
	}
	return "trusted", client.verify(h, set, now, l.MinHeight)
}

// judgeApproach verifies a header without its validators, and bisects with what the node gives.
func (l *line) judgeApproach(client *lightClient, ask source, now time.Time) (any, error) {
	h, _, err := readKept(l.Answer)
	if err != nil {
		return nil, err
	}
	way := approach{client: client, ask: ask, now: now}
	return "trusted", way.verify(h, l.MinHeight)
}

func (l *line) judgeProof() (any, error) {
	root, err := digestOf(l.Root)
	if err != nil {
		return nil, err
	}
	key, err := digestOf(l.Key)
	if err != nil {
		return nil, err
	}
	path, err := readProof(l.Proof)
	if err != nil {
		return nil, err
	}
	if l.ValueHash == "" {
		return "absent", path.checkAbsent(root, key)
	}
	hash, err := digestOf(l.ValueHash)
	if err != nil {
		return nil, err
	}
	return "present", path.checkPresent(root, key, hash)
}

func (l *line) makeContext(now time.Time) (*context, error) {
	client := &lightClient{chainID: l.ChainID}
	first, err := l.firstPoint(client)
	if err != nil {
		return nil, err
	}
	client.points = []*point{first}
	for _, raw := range l.Verified {
		h, set, err := readKept(raw)
		if err != nil {
			return nil, err
		}
		if err := client.verify(h, set, now, 0); err != nil {
			return nil, err
		}
	}
	ask, err := l.nodeHeaders()
	return &context{client, ask}, err
}

func (l *line) firstPoint(client *lightClient) (*point, error) {
	if l.Kept != nil {
		h, set, err := readKept(l.Kept)
		if err != nil {
			return nil, err
		}
		return keptPoint(client.chainID, h, set)
	}
	raw, clock, fromFile := l.Genesis, "time", false
	if l.GenesisFile != nil {
		raw, clock, fromFile = l.GenesisFile, "genesis_time", true
	}
	parts, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	if fromFile {
		if client.chainID, err = text(parts["chain_id"]); err != nil {
			return nil, err
		}
	}
	when, err := instant(parts[clock])
	if err != nil {
		return nil, err
	}
	set, err := readValidators(parts["validators"], fromFile)
	if err != nil {
		return nil, err
	}
	return genesisPoint(when, set), nil
}

func (l *line) nodeHeaders() (source, error) {
	type given struct {
		header *signedHeader
		set    *validatorSet
	}
	known := map[int64]given{}
	for _, raw := range l.Headers {
		h, set, err := readKept(raw)
		if err != nil {
			return nil, err
		}
		known[h.height] = given{h, set}
	}
	return func(height int64) (*signedHeader, *validatorSet) {
		return known[height].header, known[height].set
	}, nil
}

// readKept reads the JSON of GET /ledger/v1/headers/{height}.
func readKept(raw []byte) (*signedHeader, *validatorSet, error) {
	parts, err := readObject(raw)
	if err != nil {
		return nil, nil, err
	}
	h, err := readSignedHeader(parts["signed_header"])
	if err != nil {
		return nil, nil, err
	}
	set, err := readValidators(parts["validators"], false)
	return h, set, err
}

// seconds reads seconds since 1970, with fractions, to the nanosecond.
func seconds(given json.Number) (time.Time, error) {
	exact, ok := new(big.Rat).SetString(given.String())
	if !ok {
		return time.Time{}, fmt.Errorf("no number of seconds: %q", given)
	}
	nanos := exact.Mul(exact, big.NewRat(1e9, 1))
	whole := new(big.Int).Div(nanos.Num(), nanos.Denom())
	sec, nsec := new(big.Int).DivMod(whole, big.NewInt(1e9), new(big.Int))
	return time.Unix(sec.Int64(), nsec.Int64()).UTC(), nil
}
