package main

import "time"

// statusOf is the table of docs/spec/answers.md, "The status of a certificate". nil stands for proved absence.
func statusOf(record *certificateRecord, member *memberRecord, now time.Time) string {
	switch {
	case record == nil:
		return "unknown"
	case record.status == "revoked":
		return "revoked"
	case isAfter(now, record.notAfter):
		return "expired"
	case member == nil:
		return "revoked"
	case record.recordedHeight < member.admittedHeight:
		return "revoked"
	case member.suspended:
		return "suspended"
	case record.status == "suspended":
		return "suspended"
	case isBefore(now, record.notBefore):
		return "not-yet-valid"
	}
	return "valid"
}

func isAfter(now time.Time, seconds uint64) bool {
	if now.Unix() < 0 || uint64(now.Unix()) < seconds {
		return false
	}
	return uint64(now.Unix()) > seconds || now.Nanosecond() > 0
}

func isBefore(now time.Time, seconds uint64) bool {
	return now.Unix() < 0 || uint64(now.Unix()) < seconds
}
