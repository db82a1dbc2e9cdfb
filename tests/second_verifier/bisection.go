package main

import "time"

const maxSteps = 256

// A source gives the header of a height with its validators, as a node does; nil if it has none.
type source func(height int64) (*signedHeader, *validatorSet)

// An approach is one header's way into trust, with what a node tells on the way.
type approach struct {
	client *lightClient
	ask    source
	now    time.Time
	steps  int
}

// verify takes a header that came without validators, and bisects where the client asks for it.
func (a *approach) verify(h *signedHeader, minHeight int64) error {
	return a.reach(h, nil, minHeight)
}

func (a *approach) reach(h *signedHeader, came *validatorSet, minHeight int64) error {
	for {
		if a.steps++; a.steps > maxSteps {
			return refuse("too-little-trust", "too many steps for one header")
		}
		err := a.client.verify(h, came, a.now, minHeight)
		if err == nil {
			return nil
		}
		switch codeOf(err) {
		case "validators-needed":
			if _, came, err = a.fetch(h.height); err != nil {
				return err
			}
		case "too-little-trust":
			if err := a.halfWay(h); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

func (a *approach) halfWay(h *signedHeader) error {
	between, set, err := a.fetch((a.client.below(h.height).height + h.height) / 2)
	if err != nil {
		return err
	}
	return a.reach(between, set, 0)
}

func (a *approach) fetch(height int64) (*signedHeader, *validatorSet, error) {
	found, set := a.ask(height)
	if found == nil {
		return nil, nil, refuse("unreachable", "the node does not give a header that is needed")
	}
	if found.height != height {
		return nil, nil, refuse("wrong-form", "the node gives the header of another height")
	}
	return found, set, nil
}
