"""Linphone as an ordinary telephone at the gateway: its console program, with files in a sound card's place."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tests.e2e.gateways import NAME, PASSWORD, PATIENCE_S, Site

PROGRAM = "linphonec"
GUIDE = Path(__file__).parents[2] / "docs" / "gateway.md"
ENCRYPTIONS = {"sdes": "srtp", "dtls": "dtls"}


@dataclass
class Linphone:
    """A running linphonec, which answers by itself and is told what to do on its standard input."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    media: str

    @classmethod
    @contextmanager
    def at(cls, site: Site, folder: Path, say: Path, media: str = "sdes") -> Iterator["Linphone"]:
        """Start it: it registers by TLS, has no encryption but `media`, and says `say` over and over in calls."""
        (folder / ".local" / "share" / "linphone").mkdir(parents=True)
        config = folder / "linphonerc"
        config.write_text(_configured(site, media))
        command = [PROGRAM, "-a", "-c", str(config), "-d", "5", "-l", str(folder / "trace.log")]
        with (folder / "console.log").open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=folder, env=_environment(folder)
            )
        phone = cls(process, folder, media)
        try:
            for line in ("soundcard use files", f"play {say}", f"record {folder / 'heard.wav'}"):
                phone.command(line)
            yield phone
        finally:
            phone.close()

    def command(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def close(self) -> None:
        """Quit; a telephone that does not is killed."""
        try:
            self.process.communicate(b"quit\n", timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def wait_until_registered(self) -> None:
        self.wait_for("to [LinphoneRegistrationOk]")

    def wait_until_keyed(self) -> None:
        """Wait until media flow in a call."""
        dtls = self.media == "dtls"
        self.wait_for("All streams are encrypted" if dtls else "to LinphoneCallStreamsRunning")

    def wait_until_over(self) -> None:
        """Wait until a call is over, and its recording whole."""
        self.wait_for("to LinphoneCallReleased")

    def wait_for(self, text: str) -> None:
        """Wait until its trace says `text`."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.trace():
            assert self.process.poll() is None, self._console()
            assert time.monotonic() < until, self._console()
            time.sleep(0.05)

    def trace(self) -> str:
        path = self.folder / "trace.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def heard(self) -> bytes:
        """The recording of what came, once it is whole."""
        return (self.folder / "heard.wav").read_bytes()

    def _console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")


def _configured(site: Site, media: str) -> str:
    """Return what docs/gateway.md has, for this site and without network or DNS.

    The gateway's certificate is the only one that is trusted, so its name, which no DNS has here, is not checked.
    """
    (documented,) = re.findall(r"```ini\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    config = RawConfigParser()
    config.read_string(documented.replace(f"{NAME}:5061", f"{site.outside}:{site.ports[1]}"))
    config["auth_info_0"]["passwd"] = PASSWORD
    config["sip"].update(
        {
            "media_encryption": ENCRYPTIONS[media],
            "root_ca": str(site.testbed.site.folder / "b" / "outside.pem"),
            "verify_server_cn": "0",
            "use_ipv6": "0",
            "auto_net_state_mon": "0",
            "register_only_when_network_is_up": "0",
        }
    )
    config["rtp"]["audio_rtp_port"] = "-1"
    text = StringIO()
    config.write(text, space_around_delimiters=False)
    return text.getvalue()


def _environment(folder: Path) -> dict[str, str]:
    """Let it keep its databases and certificates in the folder."""
    return {**os.environ, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
