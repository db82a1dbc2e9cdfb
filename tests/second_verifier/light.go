package main

import (
	"bytes"
	"crypto/ed25519"
	"reflect"
	"sort"
	"time"
)

// The light client: which headers are trusted, by the steps of docs/spec/answers.md, "Headers".

const (
	trustingPeriod = 14 * 24 * time.Hour
	maxAhead       = 10 * time.Second
	maxPoints      = 64
	newerRules     = 16 // bits of version.app below those that must be 0
	newestRules    = 5  // the newest version whose records are known
)

// A point is what is trusted at one height. That of the genesis has height 0 and no header.
type point struct {
	height   int64
	time     time.Time
	set      *validatorSet
	nextHash []byte
	header   *signedHeader
	verified []*commit // with which the header was verified, or kept
}

type lightClient struct {
	chainID string
	points  []*point // ascending
	forked  bool
}

// clone makes a verifier that holds the same points and goes its own way from there.
func (c *lightClient) clone() *lightClient {
	return &lightClient{c.chainID, append([]*point(nil), c.points...), c.forked}
}

func genesisPoint(when time.Time, set *validatorSet) *point {
	return &point{time: when, set: set, nextHash: set.hash[:]}
}

// keptPoint trusts a header for where it came from. Only what holds it together is checked.
func keptPoint(chainID string, kept *signedHeader, set *validatorSet) (*point, error) {
	if kept.chainID != chainID {
		return nil, refuse("wrong-chain", "the kept header is another ledger's")
	}
	if !bytes.Equal(set.hash[:], kept.validatorsHash) {
		return nil, refuse("wrong-validators", "the kept header has other validators")
	}
	return &point{height: kept.height, time: kept.time, set: set, nextHash: kept.nextHash, header: kept,
		verified: []*commit{&kept.commit}}, nil
}

// verify takes a header with its validators (nil if none came) and trusts it from then on, or refuses it.
func (c *lightClient) verify(h *signedHeader, came *validatorSet, now time.Time, minHeight int64) error {
	if c.forked {
		return refuse("fork", "a fork was found before")
	}
	if h.height < minHeight {
		return refuse("went-back", "the header is from below what was known at the question")
	}
	if c.verifiedBefore(h) {
		return checkNotAhead(h, now)
	}
	if err := c.checkForm(h); err != nil {
		return err
	}
	set, err := c.validatorsOf(h, came)
	if err != nil {
		return err
	}
	if err := h.commit.checkPlaces(set); err != nil {
		return err
	}
	votes := h.commit.forBlock()
	if err := c.checkVotes(h, set, votes, now); err != nil {
		return err
	}
	if err := c.checkVotes(h, set, h.dropForged(c.chainID, set, votes), now); err != nil {
		return err
	}
	if err := c.checkFork(h); err != nil {
		return err
	}
	if err := checkNotAhead(h, now); err != nil {
		return err
	}
	c.trust(h, set)
	return nil
}

func (c *lightClient) verifiedBefore(h *signedHeader) bool {
	known := c.at(h.height)
	if known == nil || known.header.hash != h.hash {
		return false
	}
	for _, one := range known.verified {
		if reflect.DeepEqual(one, &h.commit) {
			return true
		}
	}
	return false
}

func (c *lightClient) at(height int64) *point {
	for _, known := range c.points {
		if known.height == height && known.header != nil {
			return known
		}
	}
	return nil
}

func (c *lightClient) below(height int64) *point {
	for place := len(c.points) - 1; place >= 0; place-- {
		if c.points[place].height < height {
			return c.points[place]
		}
	}
	return nil
}

func (c *lightClient) checkForm(h *signedHeader) error {
	switch {
	case h.chainID != c.chainID:
		return refuse("wrong-chain", "the header is another ledger's")
	case h.block != 11:
		return refuse("wrong-form", "another version of blocks")
	case h.app>>newerRules != 0:
		return refuse("newer-rules", "the header's rules have records that this verifier does not know")
	case len(h.proposer) != 20:
		return refuse("wrong-form", "the proposer's address is none")
	case h.commit.height != h.height || !bytes.Equal(h.commit.blockID.hash, h.hash[:]):
		return refuse("wrong-form", "the commit is another header's")
	}
	return nil
}

func (c *lightClient) validatorsOf(h *signedHeader, came *validatorSet) (*validatorSet, error) {
	if came != nil {
		if !bytes.Equal(came.hash[:], h.validatorsHash) {
			return nil, refuse("wrong-validators", "the validators that came are not the header's")
		}
		return came, nil
	}
	for _, known := range c.points {
		if bytes.Equal(known.set.hash[:], h.validatorsHash) {
			return known.set, nil
		}
	}
	return nil, refuse("validators-needed", "the header's validators are not known")
}

func (c *commit) checkPlaces(set *validatorSet) error {
	if len(c.votes) != len(set.validators) {
		return refuse("wrong-form", "not one vote for each validator")
	}
	for place, one := range c.votes {
		if one.flag != flagAbsent && !bytes.Equal(one.address, set.validators[place].address) {
			return refuse("wrong-form", "a vote in another validator's place")
		}
	}
	return nil
}

// forBlock tells, for each place of the set, whether there is a vote for the block.
func (c *commit) forBlock() []bool {
	votes := make([]bool, len(c.votes))
	for place, one := range c.votes {
		votes[place] = one.flag == flagCommit
	}
	return votes
}

func (h *signedHeader) dropForged(chainID string, set *validatorSet, votes []bool) []bool {
	good := make([]bool, len(votes))
	for place, given := range votes {
		one := &h.commit.votes[place]
		good[place] = given &&
			ed25519.Verify(set.validators[place].key, h.commit.signed(chainID, one), one.signature)
	}
	return good
}

// checkVotes is steps 7 and 8. It is asked twice: before signatures are verified, and for those that did.
func (c *lightClient) checkVotes(h *signedHeader, set *validatorSet, votes []bool, now time.Time) error {
	voted := map[string]bool{}
	power := int64(0)
	for place, given := range votes {
		if given {
			power += set.validators[place].power
			voted[string(set.validators[place].address)] = true
		}
	}
	if 3*power <= 2*set.total {
		return refuse("too-little-power", "not more than two thirds have voted for the block")
	}
	if known := c.at(h.height); known != nil && known.header.hash == h.hash {
		return nil
	}
	return c.checkTrust(h, voted, now)
}

func (c *lightClient) checkTrust(h *signedHeader, voted map[string]bool, now time.Time) error {
	below := c.below(h.height)
	switch {
	case below == nil:
		return refuse("before-trust", "the header is below all that is trusted")
	case h.time.Before(below.time) || below.header != nil && !h.time.After(below.time):
		return refuse("time-order", "the header is not later than the one below")
	case now.Sub(below.time) >= trustingPeriod:
		return refuse("trust-expired", "what is trusted is too old")
	case h.height == below.height+1:
		if !bytes.Equal(h.validatorsHash, below.nextHash) {
			return refuse("wrong-validators", "the block before names other validators")
		}
		return nil
	}
	power := int64(0)
	for _, one := range below.set.validators {
		if voted[string(one.address)] {
			power += one.power
		}
	}
	if 3*power <= below.set.total {
		return refuse("too-little-trust", "not more than a third of the trusted validators have voted for the block")
	}
	return nil
}

func (c *lightClient) checkFork(h *signedHeader) error {
	for _, known := range c.points {
		if known.header == nil {
			continue
		}
		if contradict(known.header, h) {
			c.forked = true
			return refuse("fork", "the header contradicts one that is trusted")
		}
	}
	return nil
}

func contradict(known, h *signedHeader) bool {
	lower, upper := known, h
	if h.height < known.height {
		lower, upper = h, known
	}
	switch {
	case lower.height == upper.height:
		return lower.hash != upper.hash
	case !upper.time.After(lower.time):
		return true
	case lower.height+1 == upper.height:
		return !bytes.Equal(upper.lastBlockID.hash, lower.hash[:]) ||
			!bytes.Equal(upper.validatorsHash, lower.nextHash)
	}
	return false
}

func checkNotAhead(h *signedHeader, now time.Time) error {
	if h.time.Sub(now) > maxAhead {
		return refuse("future", "the header is from the future")
	}
	return nil
}

// trust keeps the header among the points, of which there are at most the 64 highest.
func (c *lightClient) trust(h *signedHeader, set *validatorSet) {
	if known := c.at(h.height); known != nil {
		renewed := *known
		renewed.verified = append(append([]*commit(nil), known.verified...), &h.commit)
		c.points[sort.Search(len(c.points), func(i int) bool { return c.points[i].height >= h.height })] = &renewed
		return
	}
	added := &point{h.height, h.time, set, h.nextHash, h, []*commit{&h.commit}}
	c.points = append(c.points, added)
	sort.Slice(c.points, func(i, j int) bool { return c.points[i].height < c.points[j].height })
	if len(c.points) > maxPoints {
		c.points = c.points[len(c.points)-maxPoints:]
	}
}
