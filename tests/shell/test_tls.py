"""TLS between real servers and clients: who may connect, who may not, and what each side says about it."""

import asyncio
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client import REGISTRY

from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell import http_handshake
from voice_dpki.shell import tls as shell_tls
from voice_dpki.shell.config import Config, Listen, load_config
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.metrics import HEALTH_ROUTE
from voice_dpki.shell.reload import RELOADABLE, Live, Options
from voice_dpki.shell.tls import (
    ClientTls,
    ServerSide,
    ServerTls,
    client_context,
    live_server_side,
    make_certificate,
    server_side,
)
from voice_dpki.wire import seldom
from voice_dpki.wire.http_client import HttpClient, HttpError, HttpTlsError, tls_failure
from voice_dpki.x509.keys import from_pem, generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate


class Party:
    """Certificates in one folder, named as files of a configuration there."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self.folder = folder
        for name in ("server", "client", "stranger"):
            make_certificate(folder, name, "Operator A", 30)
        now_s = int(time.time())
        self.make("expired", now_s - 10 * 86_400, now_s - 60)

    def make(self, name: str, not_before_s: int, not_after_s: int, key: Any = None) -> None:
        key = key or generate_es256()
        der = build_certificate(
            key,
            organization="Operator A",
            common_name="client",
            not_before_s=not_before_s,
            not_after_s=not_after_s,
            random=SystemRandom(),
        )
        (self.folder / f"{name}.pem").write_text(ssl.DER_cert_to_PEM_cert(der))
        (self.folder / f"{name}-key.pem").write_bytes(to_pem(key))

    def server(self, *clients: str, own: str = "server") -> Live[ServerSide]:
        section = ServerTls(certificate=f"{own}.pem", key=f"{own}-key.pem", clients=clients or ("client.pem",))
        return Live(server_side(self.config, section))

    def client(self, own: str = "client", *servers: str) -> ssl.SSLContext:
        section = ClientTls(certificate=f"{own}.pem", key=f"{own}-key.pem", servers=servers or ("server.pem",))
        return client_context(self.config, section)

    def careless(self, own: str | None = None) -> ssl.SSLContext:
        """Make a client that shows what it likes and takes any server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if own:
            context.load_cert_chain(self.folder / f"{own}.pem", self.folder / f"{own}-key.pem")
        return context


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a coroutine on the loop of the tests, and on that of the programs."""

    def run(work: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run


def test_an_encrypted_key_is_opened_by_the_passphrase_beside_it(tmp_path: Path) -> None:
    party, passphrase = Party(tmp_path), tmp_path / "server-key.pem.passphrase"
    key = generate_es256()
    now_s = int(time.time())
    party.make("server", now_s - 60, now_s + 60, key)
    encrypted = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "server-key.pem").write_bytes(encrypted)
    with pytest.raises(LocalError, match="passphrase: cannot read"):
        party.server()
    passphrase.write_text("secret\n")
    passphrase.chmod(0o600)
    assert party.server().value.context.verify_mode is ssl.CERT_REQUIRED


@asynccontextmanager
async def served(tls: Live[ServerSide]) -> AsyncIterator[str]:
    async with serve(HttpApp([HEALTH_ROUTE]), Listen(port=0), tls=tls) as port:
        yield f"https://127.0.0.1:{port}"


async def ask(url: str, tls: ssl.SSLContext) -> int:
    async with HttpClient(url, timeout_s=30, max_answer_bytes=1000, tls=tls) as client:
        return (await client.request("GET", "/healthz")).status


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_tls_refused_total", {"reason": reason}) or 0.0


def knocks_refused() -> float:
    return REGISTRY.get_sample_value("voice_dpki_http_refused_total", {"reason": "connection-rate"}) or 0.0


def test_both_sides_know_each_other(party: Party, loop: Callable[..., Any]) -> None:
    async def work() -> None:
        async with served(party.server()) as url:
            assert await ask(url, party.client()) == 200
            async with httpx.AsyncClient(verify=party.client(), trust_env=False) as client:
                assert (await client.get(f"{url}/healthz")).status_code == 200
            with httpx.Client(verify=party.client(), trust_env=False) as blocking:
                assert (await asyncio.to_thread(blocking.get, f"{url}/healthz")).status_code == 200

    loop(work())


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (None, "no-certificate"),
        ("stranger", "unknown-certificate"),
        ("expired", "expired"),
        ("heir", "unknown-certificate"),
    ],
)
def test_clients_that_are_refused(
    party: Party, loop: Callable[..., Any], caplog: pytest.LogCaptureFixture, shown: str | None, reason: str
) -> None:
    """The heir has the listed client's very name and validity, and another key."""
    now_s = int(time.time())
    party.make("heir", now_s - 3600, now_s + 30 * 86_400)

    async def work() -> None:
        async with served(party.server("client.pem", "expired.pem")) as url:
            async with HttpClient(url, timeout_s=30, max_answer_bytes=1000, tls=party.careless(shown)) as client:
                with pytest.raises(HttpError, match="does not list this program's TLS certificate"):
                    await client.request("GET", "/healthz")
            assert await ask(url, party.client()) == 200

    before = refused(reason)
    loop(work())
    assert refused(reason) > before
    assert any(
        record.getMessage() == "TLS connection refused" and vars(record)["fields"]["reason"] == reason
        for record in caplog.records
    )


@pytest.fixture(autouse=True)
def _log_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seldom, "SAY_AGAIN_S", 0.0)


def test_a_client_without_tls_or_with_an_old_one(party: Party, loop: Callable[..., Any]) -> None:
    old = party.careless("client")
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    async def work() -> None:
        async with served(party.server()) as url:
            with pytest.raises(HttpError):
                await ask(url, old)
            async with HttpClient(url.replace("https", "http"), timeout_s=30, max_answer_bytes=1000) as client:
                with pytest.raises(HttpError):
                    await client.request("GET", "/healthz")

    before = refused("no-tls-1.3")
    loop(work())
    assert refused("no-tls-1.3") >= before + 2


@pytest.mark.parametrize("listed", ["stranger.pem", "heir.pem"])
def test_a_server_that_is_not_the_listed_one(party: Party, loop: Callable[..., Any], listed: str) -> None:
    now_s = int(time.time())
    party.make("heir", now_s - 3600, now_s + 30 * 86_400)
    tls = party.client("client", listed)

    async def work() -> None:
        async with served(party.server()) as url:
            with pytest.raises(HttpTlsError, match="certificate is none of those that are trusted"):
                await ask(url, tls)
            async with httpx.AsyncClient(verify=tls, trust_env=False) as client:
                with pytest.raises(httpx.ConnectError) as caught:
                    await client.get(url)
            assert "none of those that are trusted" in (tls_failure(caught.value) or "")

    loop(work())


def test_what_a_listed_certificate_issues_is_not_accepted(party: Party, loop: Callable[..., Any]) -> None:
    """Its key signs another certificate; neither side's library may take the listed one for an authority."""
    issuer = from_pem((party.folder / "client-key.pem").read_bytes())
    listed = x509.load_pem_x509_certificate((party.folder / "client.pem").read_bytes())
    key = generate_es256()
    issued = (
        x509.CertificateBuilder(listed.subject, x509.Name([]), key.private_key.public_key(), 7)
        .not_valid_before(listed.not_valid_before_utc)
        .not_valid_after(listed.not_valid_after_utc)
        .sign(issuer.private_key, SHA256())
    )
    (party.folder / "issued.pem").write_bytes(issued.public_bytes(Encoding.PEM))
    (party.folder / "issued-key.pem").write_bytes(to_pem(key))

    async def work() -> None:
        async with served(party.server()) as url:
            with pytest.raises(HttpError):
                await ask(url, party.careless("issued"))

    before = refused("unknown-certificate")
    loop(work())
    assert refused("unknown-certificate") > before


def test_a_folder_stands_for_the_certificates_in_it(party: Party, tmp_path: Path, loop: Callable[..., Any]) -> None:
    for name in ("client", "expired"):
        shutil.copy(party.folder / f"{name}.pem", tmp_path)
    (tmp_path / "notes.txt").write_text("no certificate")

    async def work() -> None:
        async with served(party.server(str(tmp_path))) as url:
            assert await ask(url, party.client()) == 200

    loop(work())


def test_files_that_cannot_be_used_are_named(party: Party, tmp_path: Path) -> None:
    key = party.folder / "client-key.pem"
    pem = (party.folder / "client.pem").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pem").write_bytes(pem[:200])
    (tmp_path / "authority.pem").write_bytes(_authority())
    for section, why in (
        ({"clients": ("none.pem",)}, "none.pem: cannot read this certificate"),
        ({"clients": (str(tmp_path / "bad.pem"),)}, "bad.pem: not one certificate in PEM form"),
        ({"clients": (str(tmp_path / "authority.pem"),)}, "authority.pem: .*CA:FALSE"),
        ({"clients": (str(tmp_path / "empty"),)}, "empty: none of the TLS certificates"),
        ({"clients": ("expired.pem",)}, "expired.pem: none of the TLS certificates"),
        ({"certificate": "expired.pem", "key": "expired-key.pem"}, "expired.pem: this certificate is expired"),
        ({"key": str(key)}, "client-key.pem: this is not the key of"),
        ({"key": "server.pem"}, "server.pem: not an unencrypted private key"),
    ):
        options: Any = {"certificate": "server.pem", "key": "server-key.pem", "clients": ("client.pem",), **section}
        with pytest.raises(LocalError, match=why):
            server_side(party.config, ServerTls(**options))


def _authority() -> bytes:
    key, now = generate_es256().private_key, datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def test_a_url_in_the_clear_is_refused_where_tls_is_configured(party: Party) -> None:
    with pytest.raises(LocalError, match="must begin with https"):
        HttpClient("http://127.0.0.1:9", timeout_s=1, max_answer_bytes=1, tls=party.client())


def test_a_certificate_is_not_made_twice(party: Party) -> None:
    assert (party.folder / "client-key.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(LocalError, match=r"client-key\.pem: cannot make this file: File exists"):
        make_certificate(party.folder, "client", "Operator A", 30)
    with pytest.raises(LocalError, match="no such certificate"):
        make_certificate(party.folder, "other", "x" * 100, 30)


async def test_a_handshake_that_does_not_go_on_is_ended(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_handshake, "HANDSHAKE_TIMEOUT_S", 0.05)
    async with served(party.server()) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        await writer.wait_closed()


def test_handshakes_that_do_not_go_on_keep_nobody_out(
    party: Party, loop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of them ends at once, long before its time is up."""
    monkeypatch.setattr(http_handshake, "MAX_HANDSHAKES", 4)
    monkeypatch.setattr(http_handshake, "HANDSHAKE_TIMEOUT_S", 60)

    async def work() -> None:
        async with served(party.server()) as url:
            port = int(url.rpartition(":")[2])
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
            assert await ask(url, party.client()) == 200
            assert await asyncio.wait_for(silent[0][0].read(), 30) == b""
            for _, writer in silent:
                writer.close()

    loop(work())


async def test_connections_are_paid_for_before_their_handshakes(party: Party) -> None:
    """A stranger above the limit gets no handshake; a client that has shown a listed certificate always does."""
    bounds, silent = Limits(connections=2, cost_s=0.001), []
    app = HttpApp([HEALTH_ROUTE])
    async with serve(app, Listen(port=0), tls=party.server(), limits=bounds) as port:
        url, before = f"https://127.0.0.1:{port}", knocks_refused()
        most = 2 * bounds.connections
        for _ in range(most + 1):
            silent.append(await asyncio.open_connection("127.0.0.1", port))
        with suppress(ConnectionError):
            assert await asyncio.wait_for(silent[-1][0].read(), 30) == b""
        assert knocks_refused() == before + 1
        with pytest.raises(HttpError):
            await ask(url, party.client())
        for _, writer in silent:
            writer.transport.abort()
    async with serve(app, Listen(port=0), tls=party.server(), limits=bounds) as port:
        for _ in range(most + 3):
            assert await ask(f"https://127.0.0.1:{port}", party.client()) == 200


def test_a_refused_body_ends_a_connection_of_tls_too(party: Party, loop: Callable[..., Any]) -> None:
    async def work() -> None:
        async with served(party.server()) as url:
            port, tls = int(url.rpartition(":")[2]), party.client()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            writer.write(b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 405 ")
            writer.close()

    loop(work())


async def test_an_address_on_a_network_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(HttpApp([HEALTH_ROUTE]), Listen(host="0.0.0.0", port=0)):
        assert "WITHOUT TLS" in caplog.text


def test_a_folder_with_more_certificates_than_are_read_is_refused(
    party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut to what is read, it would leave peers out that the operator has listed."""
    monkeypatch.setattr(shell_tls, "MAX_LISTED", 2)
    folder = tmp_path / "clients"
    folder.mkdir()
    for number in range(3):
        shutil.copy(party.folder / "client.pem", folder / f"{number}.pem")
    with pytest.raises(LocalError, match="3 certificates, and at most 2 are read"):
        party.server(str(folder))
    (folder / "2.pem").unlink()
    party.server(str(folder))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), aiohttp.ClientOSError(104, "reset")])
async def test_a_reset_connection_hints_at_the_list_of_certificates(
    party: Party, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A refusing server resets the connection; aiohttp raises one or the other by when it sees that."""

    async def exchange(*_: object) -> Any:
        raise error

    async with HttpClient("https://127.0.0.1:9", timeout_s=30, max_answer_bytes=1000, tls=party.client()) as client:
        monkeypatch.setattr(client, "_exchange", exchange)
        with pytest.raises(HttpError, match="does not list this program's TLS certificate"):
            await client.request("GET", "/healthz")


class Reloaded:
    """A configuration with [tls] in a file, as a service reads it at its start and at each reload."""

    def __init__(self, party: Party, folder: Path) -> None:
        self.folder = folder
        for file in party.folder.iterdir():
            shutil.copy(file, folder / file.name)
        self.write("server", "client")
        self.options = Options(partial(load_config, folder / "c.toml", Reloadable))

    def write(self, own: str, *clients: str) -> None:
        listed = ", ".join(f'"{each}.pem"' for each in clients)
        text = f'[tls]\ncertificate = "{own}.pem"\nkey = "{own}-key.pem"\nclients = [{listed}]\n'
        (self.folder / "c.toml").write_text(text)

    def side(self) -> Live[ServerSide]:
        side = live_server_side(self.folder / "c.toml", self.options, lambda config: config.tls)
        assert side is not None
        return side


class Reloadable(Config, frozen=True, kw_only=True):
    tls: Annotated[ServerTls | None, RELOADABLE] = None


async def test_certificate_and_list_change_without_a_restart_and_without_a_lost_request(
    party: Party, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Reloaded(party, tmp_path)
    make_certificate(tmp_path, "next", "Operator A", 30)
    shutil.copy(party.config.parent / "server.pem", tmp_path / "server.pem")
    async with served(config.side()) as url:
        old, other = party.client("client", "server.pem"), party.client("stranger", "server.pem")
        async with HttpClient(url, timeout_s=30, max_answer_bytes=1000, tls=old) as client:
            assert (await client.request("GET", "/healthz")).status == 200
            with pytest.raises(HttpError):
                await ask(url, other)
            config.write("next", "client", "stranger")
            config.options.reload()
            assert (await client.request("GET", "/healthz")).status == 200  # over the connection that stands
            with pytest.raises(HttpTlsError):
                await ask(url, other)  # which knows the old certificate alone
            knows = Party.client(_at(party, tmp_path), "stranger", "next.pem")
            assert await ask(url, knows) == 200
            config.write("next", "stranger")
            config.options.reload()
            refused = await client.request("GET", "/healthz")
            assert (refused.status, b"no longer listed" in refused.body) == (403, True)
            with pytest.raises(HttpError):
                await client.request("GET", "/healthz")
            assert await ask(url, knows) == 200
            for broken in ("", "[tls]\n", '[tls]\ncertificate = "no"\nkey = "no"\nclients = ["no"]\n'):
                (tmp_path / "c.toml").write_text(broken)
                config.options.reload()
                assert await ask(url, knows) == 200
    assert caplog.text.count("configuration refused, the one before stays") == 3


async def test_a_server_in_clear_takes_no_tls_without_a_restart(
    party: Party, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c.toml").write_text("")
    options = Options(partial(load_config, tmp_path / "c.toml", Reloadable))
    assert live_server_side(tmp_path / "c.toml", options, lambda config: config.tls) is None
    options.reload()
    assert not options.shortfall()
    for file in party.folder.iterdir():
        shutil.copy(file, tmp_path)
    text = '[tls]\ncertificate = "server.pem"\nkey = "server-key.pem"\nclients = ["client.pem"]\n'
    (tmp_path / "c.toml").write_text(text)
    options.reload()
    assert "the changed configuration is refused" in options.shortfall()
    assert caplog.records[-1].__dict__["fields"]["reason"].endswith("begins with it at a restart")


def _at(party: Party, folder: Path) -> Party:
    moved = object.__new__(Party)
    moved.folder, moved.config = folder, folder / "config.toml"
    return moved


async def test_clients_count_by_their_certificates_where_they_have_one(party: Party) -> None:
    """Two clients behind one address do not take each other's places, and one at two addresses has one share."""
    bounds = Limits(connections=1)
    tls = party.server("client.pem", "stranger.pem")
    async with serve(HttpApp([HEALTH_ROUTE]), Listen(host="0.0.0.0", port=0), tls=tls, limits=bounds) as port:
        url = f"https://127.0.0.1:{port}"
        async with HttpClient(url, timeout_s=30, max_answer_bytes=1000, tls=party.client()) as client:
            assert (await client.request("GET", "/healthz")).status == 200
            assert await ask(url, party.client("stranger")) == 200
            assert await ask(f"https://127.0.0.2:{port}", party.client()) == 429


@pytest.mark.peer("curl")
async def test_clients_that_verify_hosts_verify_the_certificate(party: Party, tmp_path: Path) -> None:
    hosts = ("localhost", "a.example", "127.0.0.1", "::1")
    make_certificate(tmp_path, "server", "Operator A", 30, hosts)
    names = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    held = names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in held] == [*hosts]
    shutil.copy(party.folder / "client.pem", tmp_path)
    side = _at(party, tmp_path).server()
    show = ("--cert", party.folder / "client.pem", "--key", party.folder / "client-key.pem")
    async with serve(HttpApp([HEALTH_ROUTE]), Listen(port=0), tls=side) as port:
        for host, code in (("127.0.0.1", 0), ("localhost", 0), ("a.example", 0), ("b.example", 60)):
            at = ("--resolve", f"{host}:{port}:127.0.0.1", f"https://{host}:{port}/healthz")
            command = ("curl", "-sf", "--cacert", tmp_path / "server.pem", *show, *at)
            curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            assert await curl.wait() == code, host


@pytest.mark.parametrize("host", ["*.example", "a b", "", "a_b.example", "1.2.3", "-a.example", "\xfc.example"])
def test_what_is_no_host_gets_no_certificate(tmp_path: Path, host: str) -> None:
    with pytest.raises(LocalError, match="is neither a host's name nor a numeric address"):
        make_certificate(tmp_path, "server", "Operator A", 30, [host])
    assert not list(tmp_path.iterdir())
