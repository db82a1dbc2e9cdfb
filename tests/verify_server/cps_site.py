"""A call placement service in this process, and operators who are its clients or strangers to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from tests.recorded import RangesAlone, absent, recorded
from verify_server.cps import CallPlacementService
from verify_server.cps_config import CpsConfig
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.stir.access import AccessAction, Place, sign_access
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.cps import passports_body, path_of
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import Credential, make_credential, sign_call
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, read_profile
from voice_dpki.x509.recorded import RecordedCertificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

HOST = "cps.b.example"
CALLER, CALLED = Tn("493023125001"), Tn("442079460001")
PLACE = Place(CALLER, CALLED)
ORIGID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"


class SettableTime:
    """Both clocks; the wall clock begins with the machine's."""

    def __init__(self) -> None:
        self.wall_s, self.passed_s = float(int(time.time())), 1000.0

    def now_s(self) -> float:
        return self.wall_s

    def steady_s(self) -> float:
        return self.passed_s

    def elapse(self, seconds: float) -> None:
        self.wall_s += seconds
        self.passed_s += seconds


@dataclass(frozen=True)
class Operator:
    """An operator with a certificate on the ledger."""

    organization: str
    start: str
    spcs: tuple[str, ...] = ()
    signer: Any = field(default_factory=generate_es256)

    @property
    def allotment(self) -> Allotment:
        return Allotment(ranges=(TnRange(Tn(self.start), 1000),), spcs=self.spcs)

    @property
    def member(self) -> Member:
        return Member(
            organization=self.organization,
            kind=MemberKind.SERVICE_PROVIDER,
            ranges=self.allotment.ranges,
            spcs=self.spcs,
        )

    def der(self) -> bytes:
        now_s = int(time.time())
        return build_certificate(
            self.signer,
            organization=self.organization,
            common_name="sti.example",
            tn_auth_list=TnAuthList(spcs=self.spcs, ranges=self.allotment.ranges),
            not_before_s=now_s - 86_400,
            not_after_s=now_s + 86_400,
            random=SystemRandom(),
        )


@dataclass
class Client:
    """An operator's client of the service."""

    site: "Site"
    operator: Operator
    credential: Credential

    def passport(self, orig: Tn = CALLER, dest: Tn = CALLED, ago_s: float = 0) -> str:
        """Sign a call."""
        now_s = self.site.clock.now_s() - ago_s
        request = SigningRequest("A", orig, Destinations((dest,)), int(now_s), ORIGID)
        return sign_call(request, self.credential, now_s).token

    def access(self, action: AccessAction, place: Place = PLACE, *tokens: str, **changes: Any) -> str:
        now_s = self.site.clock.now_s() + changes.pop("ahead_s", 0)
        options = {"lifetime_s": 15, "passports": tokens, "audience": HOST, **changes}
        return sign_access(self.credential, action, place, now_s=now_s, random=SystemRandom(), **options)

    async def publish(self, *tokens: str, place: Place = PLACE, access: str = "", **changes: Any) -> httpx.Response:
        given = access or self.access(AccessAction.PUBLISH, place, *tokens, **changes)
        return await self.site.http.post(path_of(place), content=passports_body(tokens), headers=bearer(given))

    async def retrieve(self, place: Place = PLACE, access: str = "") -> httpx.Response:
        return await self.site.http.get(
            path_of(place), headers=bearer(access or self.access(AccessAction.RETRIEVE, place))
        )

    async def retrieved(self, place: Place = PLACE) -> list[str]:
        answer = await self.retrieve(place)
        return list(answer.json()["passports"]) if answer.status_code == 200 else []


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


class Site(RangesAlone):
    """The service of Operator B, with what a ledger would say of Operators A, B and C."""

    def __init__(self, **changes: Any) -> None:
        self.clock = SettableTime()
        self.operators = [
            Operator("Operator A", "493023125000"),
            Operator("Operator B", "442079460000", ("2B",)),
            Operator("Operator C", "331234567000"),
        ]
        self.records: dict[CertDigest, RecordedCertificate] = {}
        self.is_down = False
        self.services: dict[str, str] = {}
        """What the ledger says of members' call placement services."""
        told = {"audiences": (HOST,), "organizations": ("Operator B",), "ledger_url": "", "genesis": ""}
        self.config = CpsConfig(listen=Listen(port=0), **{**told, **changes})
        self.a, self.b, self.c = (self.client(each) for each in self.operators)
        self.http: httpx.AsyncClient

    def client(self, operator: Operator, *, is_recorded: bool = True) -> Client:
        der = operator.der()
        profile = read_profile(der)
        record = recorded(der, operator.allotment, operator.organization) if is_recorded else absent(profile.digest)
        self.records[profile.digest] = record
        info = "https://certs.example/{digest}.der"
        return Client(self, operator, make_credential(operator.signer, profile, info, time.time()))

    def set(self, client: Client, **changes: Any) -> None:
        """Change what the ledger says of a client's certificate."""
        digest = client.credential.profile.digest
        self.records[digest] = replace(self.records[digest], **changes)

    def held(self, digest: CertDigest) -> RecordedCertificate | None:
        return None

    async def look_up(self, digest: CertDigest) -> RecordedCertificate:
        if self.is_down:
            raise VerificationFailed(Step.LEDGER, "this domain's inquiry node does not answer")
        return self.records.get(digest) or absent(digest)

    def members(self) -> Mapping[str, Member]:
        if self.is_down:
            raise InquiryError(InquiryCode.STALE, "the members of the federation are not known at this time")
        members = {each.organization: each.member for each in self.operators}
        return {name: replace(member, cps=self.services.get(name, "")) for name, member in members.items()}

    @asynccontextmanager
    async def serving(self, trace: Path | None = None) -> AsyncIterator["Site"]:
        with closing(Tracer.named_by(TraceTo(trace), "cps-server")) as tracer:
            service = CallPlacementService(self.config, self, self, self.clock, tracer)
            async with serve(service.app(), self.config.listen, limits=self.config.limits) as port:
                url = f"http://127.0.0.1:{port}"
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as self.http:
                    yield self


class Hung:
    """A service that accepts connections and says nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Hung":
        self._server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _taken(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
