"""Callers outside the federation: the configuration, and the program with a real ledger and a repository."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.one_operator import OneOperator, Service, until
from tests.pki import Signer, list_at, pem_of, revocation_list, root
from tests.repository import Repository, reply
from verify_server import passport_command
from verify_server.config import EXAMPLE, load_setup
from verify_server.main import main
from voice_dpki.errors import LocalError
from voice_dpki.x509.keys import generate_es256

from .conftest import TOKEN, Caller, Site, verification
from .test_outside import CHAIN, LEAF, MIDDLE, NOW_S, OTHER_ROOT, OUTSIDE, PA, ROOT, signed

PATH = "/stir/v1/verification"
PAGE = Path(__file__).parents[2] / "docs/stir-outside.md"
SECTION = '\n[outside]\nauthorities = ["sti-cas.pem"]\nhosts = ["localhost"]\n'


def with_outside(site: Site, section: str = SECTION) -> Site:
    (site.folder / "sti-cas.pem").write_bytes(pem_of(ROOT.certificate))
    return site.write(EXAMPLE + section)


def test_check_config_tells_of_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "outside      none" in capsys.readouterr().out
    with_outside(site)
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "outside      1 authorities, certificates from localhost; accept where" in capsys.readouterr().out


def test_the_example_of_the_page_can_be_used(site: Site) -> None:
    text = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
    (site.folder / "sti-cas.pem").write_bytes(pem_of(ROOT.certificate))
    site.config.write_text(text)
    setup = load_setup(site.config).outside
    assert setup is not None
    setup.reach.check_url("https://a.sti.example:8443/x.pem")


@pytest.mark.parametrize(
    ("section", "match"),
    [
        (SECTION.replace("sti-cas", "missing"), "missing.pem: cannot read"),
        (SECTION.replace("sti-cas.pem", "proxy.tokens"), r"proxy.tokens: it is neither PEM nor a signed list"),
        (SECTION.replace('["localhost"]', "[]"), "outside.hosts"),
        (SECTION.replace("localhost", "https://localhost"), "outside.hosts"),
        (SECTION.replace("localhost", "Localhost"), "outside.hosts"),
        (SECTION + 'networks = ["10.0.0.1/8"]\n', "10.0.0.1/8 is no network"),
        (SECTION + 'roots = "proxy.tokens"\n', "holds no certificates"),
        (SECTION + 'list_signer = "signer.der"\n', "sti-cas.pem: the list is not signed"),
        (SECTION + "ports = [0]\n", "outside.ports"),
        (SECTION + 'list_signers = ["proxy.tokens"]\n', "proxy.tokens: holds no certificates in PEM"),
        (SECTION + 'revocation_unknown = "ignore"\n', "outside.revocation_unknown"),
    ],
)
def test_errors_say_what_to_mend(site: Site, section: str, match: str) -> None:
    (site.folder / "signer.der").write_bytes(Caller(generate_es256()).der())
    with pytest.raises(LocalError, match=match):
        load_setup(with_outside(site, section).config)


class Server:
    """A ledger of Operator A's, a verification server with `[outside]`, and a repository."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self.repository, self.folder = repository, folder
        self.ledger = OneOperator(folder)
        config = EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8092", "port = 0")
        section = 'list_signers = ["sti-pa.pem"]\n'
        (folder / "sti-pa.pem").write_bytes(pem_of(PA.certificate))
        section += f'networks = ["127.0.0.0/8"]\nports = [{repository.port}]\nroots = "{repository.roots}"\n'
        config = config.replace("genesis.json", "net/genesis.json") + SECTION + section
        (folder / "verify.toml").write_text(config + '\n[trace]\nfile = "verify-b.jsonl"\n')
        (folder / "proxy.tokens").write_text(TOKEN)
        self.lists(ROOT.certificate)
        self.service = Service("verify_server.main", folder / "verify.toml", folder / "verify-b.jsonl")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.client = httpx.Client(base_url=self.service.url, headers=headers, trust_env=False)

    def lists(self, *certificates: object) -> None:
        (self.folder / "sti-cas.pem").write_bytes(pem_of(*certificates))  # type: ignore[arg-type]

    def verdict(self, orig: str = OUTSIDE) -> dict[str, object]:
        (identity,) = signed(self.repository.url(), orig=orig).identities
        answer = self.client.post(PATH, json=verification(identity, orig))
        assert answer.status_code == 200, answer.text
        verdict: dict[str, object] = answer.json()["verificationResponse"]
        return verdict

    def stop(self) -> None:
        self.client.close()
        assert self.service.stop() == 0
        assert self.ledger.stop() == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Repository(tmp_path) as repository:
        repository.replies["/shaken.pem"] = reply(CHAIN)
        server = Server(tmp_path, repository)
        yield server
        server.stop()


def verified(
    server: Server, capsys: pytest.CaptureFixture[str], *more: str, signer: Signer = LEAF
) -> tuple[int, str]:
    """Ask `voice-dpki passport verify` about a call; returns its exit status and what it says."""
    (identity,) = signed(server.repository.url(), signer).identities
    (server.folder / "identity").write_text(identity)
    numbers = ["--from", OUTSIDE, "--to", "442079460001", *more]
    status = passport_command.command(
        ["verify", "--config", str(server.folder / "verify.toml"), *numbers, str(server.folder / "identity")]
    )
    return status, capsys.readouterr().out


def test_the_command_knows_the_list_too(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = verified(server, capsys)
    assert (status, "trust       this operator's list" in said) == (0, True)
    (told,) = json.loads(verified(server, capsys, "--json")[1])["identities"]
    assert (told["signer"], told["trust"]) == ("Carrier 1", "list")
    repository = server.repository
    revoked = MIDDLE.issue(
        "Carrier 2", NOW_S, extensions=(list_at(repository.url("/crl"), PA.certificate.subject),)
    )
    repository.replies["/shaken.pem"] = reply(pem_of(revoked.certificate, MIDDLE.certificate))
    repository.replies["/crl"] = reply(revocation_list(PA, (revoked, MIDDLE), now_s=NOW_S), "application/pkix-crl")
    status, said = verified(server, capsys, signer=revoked)
    assert (status, "is on a revocation list" in said) == (1, True)
    server.repository.replies["/shaken.pem"] = reply(b"", status=404)
    status, said = verified(server, capsys)
    assert status == 1
    assert "certificate could not be fetched: the answer is 404" in said


def test_a_call_from_outside(server: Server) -> None:
    assert server.verdict()["verstat"] == "No-TN-Validation"
    verdict = until(lambda: (told := server.verdict()) and told["verstat"] == "TN-Validation-Passed" and told)
    assert isinstance(verdict, dict)
    assert (verdict["trust"], verdict["signer"], verdict["attest"]) == ("list", "Carrier 1", "B")
    assert server.repository.asked == ["/shaken.pem"]
    members = server.verdict("493023125001")
    assert (members["verstat"], members["step"]) == ("TN-Validation-Failed", "E17 certificate")
    server.lists(OTHER_ROOT.certificate, root("Third CA", NOW_S).certificate)
    server.service.hang_up("configuration read again")
    assert server.verdict()["step"] == "E17 certificate"
