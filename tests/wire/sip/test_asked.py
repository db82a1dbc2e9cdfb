"""What is read from an INVITE for the STIR services, and what is written into it."""

from typing import Any

import pytest
from sipmessage import Request

from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.sip.message import encode, parse_message
from voice_dpki.stir.call import NO_CALLER_NUMBER
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.national import Country
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.verdict import Verstat
from voice_dpki.wire.sip.asked import (
    MAX_IDENTITIES,
    NoCallerError,
    Terms,
    asserted,
    assertion_of,
    call_of,
    caller_of,
    read_invite,
    signed,
    signing_of,
)

NOW_S = 1_790_000_000
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
LINES = {
    "Via": "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1",
    "Max-Forwards": "70",
    "From": '"Alice" <sip:+49-302-312-5001@a.example;user=phone>;tag=1',
    "To": "<sip:+442079460001@b.example;user=phone>",
    "Call-ID": "c1",
    "CSeq": "1 INVITE",
    "Attestation-Info": "B",
}


def text(uri: str = "sip:+442079460001@b.example;user=phone", body: str = "", **changes: str | None) -> bytes:
    fields = {**LINES, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"INVITE {uri} SIP/2.0", *lines, "", body]).encode()


def invite(uri: str = "sip:+442079460001@b.example;user=phone", body: str = "", **changes: str | None) -> Request:
    return read_invite(text(uri, body, **changes))


def signing(request: Request, terms: Terms = Terms()):  # type: ignore[no-untyped-def] # noqa: B008
    return signing_of(request, terms, NOW_S, SystemRandom())


def test_what_is_signed() -> None:
    asked = signing(invite(Origination_Id=UUID))
    assert (asked.attest, asked.orig, asked.dest) == ("B", "493023125001", Destinations((Tn("442079460001"),)))
    assert (asked.iat_s, asked.origid, asked.key_mgmt, asked.sdp) == (NOW_S, UUID, (), None)
    assert len({signing(invite()).origid for _ in range(4)}) == 4
    assert signing(invite(Date="Mon, 21 Sep 2026 13:46:40 GMT")).iat_s == 1_789_998_400


def test_who_calls_is_asserted_before_it_is_said() -> None:
    anonymous = "<sip:anonymous@anonymous.invalid>;tag=1"
    listed = "<sip:alice@a.example>, <tel:+49-302-312-5002>"
    assert signing(invite(From=anonymous, P_Asserted_Identity=listed)).orig == "493023125002"
    assert signing(invite(P_Asserted_Identity="<sip:alice@a.example>")).orig == "493023125001"
    with pytest.raises(RequestError, match=r"'From' .* neither P-Asserted-Identity nor From names"):
        signing(invite(From=anonymous))
    with pytest.raises(NoCallerError):
        caller_of(invite(From=anonymous))
    assert call_of(invite(From=anonymous), NOW_S).orig == NO_CALLER_NUMBER


def test_from_names_the_caller_before_the_assertion_where_rules_say_so() -> None:
    listed, anonymous = "<tel:+493023125002>", "<sip:anonymous@anonymous.invalid>;tag=1"
    assert call_of(invite(P_Asserted_Identity=listed), NOW_S).orig == "493023125002"
    assert call_of(invite(P_Asserted_Identity=listed), NOW_S, from_first=True).orig == "493023125001"
    hidden = invite(From=anonymous, P_Asserted_Identity=listed)
    assert call_of(hidden, NOW_S, from_first=True).orig == "493023125002"
    said = assertion_of(invite(P_Asserted_Identity=listed), "", from_first=True)
    assert said == "<sip:+49-302-312-5001@a.example;user=phone>"


@pytest.mark.parametrize("changes", [{"From": "x"}, {"To": "<<"}, {"To": None}])
def test_parties_that_cannot_be_read_are_400(changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        call_of(invite(**changes), NOW_S)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("given", "told"),
    [(None, "id"), ("none", "id"), ("user; header", "user;header;id"), ("id;critical", "critical;id")],
)
def test_who_calls_is_withheld(given: str | None, told: str) -> None:
    assert asserted(invite(Privacy=given), "<sip:x@a.example>", withheld=True).headers.getlist("Privacy") == [told]
    left = asserted(invite(Privacy=given), "<sip:x@a.example>").headers.getlist("Privacy")
    assert left == ([] if given is None else [given])


@pytest.mark.parametrize(
    ("terms", "attest"),
    [(Terms(), "B"), (Terms("C"), "B"), (Terms("C", attest_by_header=False), "C")],
)
def test_whose_word_the_attestation_is(terms: Terms, attest: str) -> None:
    assert signing(invite(), terms).attest == attest


@pytest.mark.parametrize(
    ("changes", "message_id"),
    [
        ({"Attestation_Info": None}, "SVC4001"),
        ({"Attestation_Info": "D"}, "SVC4005"),
        ({"P_Attestation_Info": "A"}, "SVC4005"),
        ({"Origination_Id": "x"}, "SVC4005"),
        ({"Identity": "a.b.c;info=<https://x>"}, "SVC4005"),
        ({"Date": "yesterday"}, "SVC4006"),
        ({"To": "<mailto:a@b>"}, "SVC4006"),
        ({"Content_Type": "application/sdp", "body": "no SDP"}, "SVC4006"),
    ],
)
def test_what_gets_no_signature(changes: dict[str, str], message_id: str) -> None:
    with pytest.raises(RequestError) as raised:
        signing(invite(**changes))
    assert raised.value.message_id == message_id


@pytest.mark.parametrize("data", [b"", b"junk", text().replace(b"INVITE", b"BYE"), b"SIP/2.0 200 OK\r\n\r\n"])
def test_what_is_no_invite(data: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        read_invite(data)
    assert raised.value.message_id == ("SVC4006" if data else "SVC4000")


def test_lines_may_have_lost_their_carriage_returns() -> None:
    assert encode(read_invite(text().replace(b"\r\n", b"\n"))) == encode(read_invite(text()))


def test_the_sdp_is_signed_where_that_is_asked_for() -> None:
    sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\na=key-mgmt:mikey AQ\r\n"
    request = invite(body=sdp, Content_Type="application/sdp")
    assert (signing(request).key_mgmt, signing(request).sdp) == (("mikey AQ",), None)
    call = call_of(request, NOW_S)
    assert call.call_id == request.headers["Call-ID"]
    assert (call.key_mgmt, call.sdp) == (("mikey AQ",), signing(request, Terms(sign_sdp=True)).sdp)
    assert call.sdp is not None


def test_the_keys_of_several_media_are_signed_with_what_they_key() -> None:
    sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\na=key-mgmt:mikey AQ\r\n"
    sdp += "m=audio 5000 RTP/SAVP 0\r\nm=video 5002 RTP/SAVP 96\r\n"
    request = invite(body=sdp, Content_Type="application/sdp")
    told = ("mikey AQ", "m=audio RTP/SAVP", "m=video RTP/SAVP")
    assert signing(request).key_mgmt == call_of(request, NOW_S).key_mgmt == told


def test_a_call_is_to_both_parties_that_it_names() -> None:
    same = call_of(invite(Identity="a.b.c", uri="sip:+44.2079460001@192.0.2.1:5070"), NOW_S)
    assert (same.dest, same.identities) == (Destinations((Tn("442079460001"),)), ("a.b.c",))
    assert call_of(invite("tel:+442079460002"), NOW_S).dest.tns == ("442079460001", "442079460002")
    assert call_of(invite("sip:Bob@b.example;transport=tcp"), NOW_S).dest.uris == ("sip:bob@b.example",)
    assert call_of(invite(), NOW_S).identities == ()
    assert call_of(invite("tel:+442079460002"), NOW_S).target == Destinations((Tn("442079460002"),))


def test_diversions_lead_to_the_request_uri() -> None:
    assert call_of(invite("tel:+442079460002"), NOW_S).target == Destinations((Tn("442079460002"),))
    assert call_of(invite("sip:bob@b.example"), NOW_S).target == Destinations(uris=("sip:bob@b.example",))


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (None, set()),
        ("ets.0", {"ets.0"}),
        ("ETS.0, wps.1", {"ets.0", "wps.1"}),
        ("ets", set()),
        ("ets.0,", {"ets.0"}),
    ],
)
def test_the_priority_of_a_call(value: str | None, values: set[str]) -> None:
    """A value that is none changes nothing for the caller."""
    call = call_of(invite(Resource_Priority=value, Priority=value and "PSAP-Callback"), NOW_S)
    assert call.resource_priority == frozenset(values)
    assert call.priority == ("psap-callback" if value else "")


def test_identities_are_bounded() -> None:
    def with_identities(count: int) -> Request:
        lines = b"".join(b"Identity: a.b.%d\r\n" % at for at in range(count))
        return read_invite(text().replace(b"Via:", lines + b"Via:"))

    assert len(call_of(with_identities(MAX_IDENTITIES), NOW_S).identities) == MAX_IDENTITIES
    with pytest.raises(RequestError, match="at most 10"):
        call_of(with_identities(MAX_IDENTITIES + 1), NOW_S)


def test_the_identity_is_added_and_nothing_else_is_changed() -> None:
    request = invite(X_Other="  as, it;was ", Contact="<sip:a@192.0.2.7>;+sip.instance=x", body="v=0\r\n")
    before, after = encode(request).split(b"\r\n"), encode(signed(request, "a.b.c;info=<x>", NOW_S)).split(b"\r\n")
    assert [line for line in after if line not in before] == [
        b"Date: Mon, 21 Sep 2026 14:13:20 GMT",
        b"Identity: a.b.c;info=<x>",
    ]
    assert [line for line in after if line in before] == before
    dated = invite(Date="Mon, 21 Sep 2026 14:13:19 GMT")
    assert encode(signed(dated, "a.b.c", NOW_S)).count(b"Date: Mon, 21 Sep 2026 14:13:19 GMT") == 1


@pytest.mark.parametrize(
    ("changes", "assertion"),
    [
        ({}, "<sip:+49-302-312-5001;verstat=No-TN-Validation@a.example;user=phone>"),
        (
            {"P_Asserted_Identity": "<tel:+493023125002;cpc=ordinary>"},
            "<tel:+493023125002;verstat=No-TN-Validation>",
        ),
        (
            {"P_Asserted_Identity": '"A" <sip:493;verstat=TN-Validation-Passed@a.example:5070;user=phone>'},
            "<sip:493;verstat=No-TN-Validation@a.example;user=phone>",
        ),
        ({"From": "<sip:al%3Bice:pw@a.example>;tag=1"}, "<sip:al%3Bice;verstat=No-TN-Validation@a.example>"),
        (
            {"From": "<sip:*31%23@[2001:db8::1]>;tag=1"},
            "<sip:*31%23;verstat=No-TN-Validation@[2001:db8::1];user=phone>",
        ),
        ({"From": "<sip:a.example>;tag=1"}, "<sip:a.example>"),
    ],
)
def test_the_caller_is_asserted_with_a_verstat(changes: dict[str, str], assertion: str) -> None:
    assert assertion_of(invite(**changes), Verstat.NONE) == assertion


def test_what_others_asserted_is_gone() -> None:
    request = invite(
        From="<sip:+493023125001;verstat=TN-Validation-Passed@a.example>;tag=1",
        P_Asserted_Identity="<sip:+493023125001;verstat=TN-Validation-Passed@a.example>",
        P_Preferred_Identity="<sip:+493023125001;verstat=TN-Validation-Passed@a.example>",
    )
    after = asserted(request, assertion_of(request, Verstat.FAILED))
    assert encode(after).count(b"verstat") == 1
    assert after.headers["P-Asserted-Identity"].startswith("<sip:+493023125001;verstat=TN-Validation-Failed@")
    assert encode(request).count(b"verstat") == 3
    assert isinstance(parse_message(encode(after)), Request)


def test_numbers_in_national_forms() -> None:
    """Who calls and who is called is told in E.164; the INVITE itself stays as it is."""
    country = Country("DE")
    given = invite(
        "sip:00442079460001@b.example;user=phone",
        From="<sip:030-23125001@a.example>;tag=1",
        To="<sip:00442079460001@b.example>",
    )
    asked = signing_of(given, Terms(), NOW_S, SystemRandom(), country)
    assert (asked.orig, asked.dest) == ("493023125001", Destinations((Tn("442079460001"),)))
    call = call_of(given, NOW_S, country=country)
    assert (call.orig, call.dest, call.target) == (asked.orig, asked.dest, asked.dest)
    assert signing_of(given, Terms(), NOW_S, SystemRandom()).orig == "03023125001"
    told = call_of(invite(P_Asserted_Identity="<tel:03023125002>"), NOW_S, country=country)
    assert told.orig == "493023125002"


def test_a_number_that_could_be_two_is_refused() -> None:
    given = invite(From="<sip:2015550123@a.example>;tag=1")
    for ask in (
        lambda: signing_of(given, Terms(), NOW_S, SystemRandom(), Country("US")),
        lambda: call_of(given, NOW_S, country=Country("US")),
    ):
        with pytest.raises(RequestError, match="a national and an international one") as failure:
            ask()
        assert failure.value.message_id == "SVC4006"
