"""SoftHSM2 as the HSM of a test, and OpenSC's pkcs11-tool as whoever makes keys in it."""

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from voice_dpki.shell.token_module import module_at
from voice_dpki.x509.keys import from_pem

MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN: Final = "4711"
CONF: Final = "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n"


@dataclass(frozen=True)
class SoftHsm:
    """An HSM with one token, whose files are in `folder`; programs find it by `variables` in their environment."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @property
    def pin(self) -> str:
        return PIN

    @property
    def pin_file(self) -> Path:
        return self.folder / "pin"

    def prepare(self) -> None:
        """Make an HSM without a token."""
        (self.folder / "tokens").mkdir()
        self._write_files()

    def make(self) -> None:
        """Make the token "calls" with the key "sti"."""
        self.prepare()
        self._run(
            *("softhsm2-util", "--init-token", "--free", "--label", "calls", "--so-pin", "12345678", "--pin", PIN)
        )
        self.make_key("sti")

    def copy(self, folder: Path) -> "SoftHsm":
        """Return an HSM of its own with the same token."""
        shutil.copytree(self.folder / "tokens", folder / "tokens")
        copied = SoftHsm(folder)
        copied._write_files()
        return copied

    def use_here(self) -> None:
        """Have the module of this process, whose environment names this HSM, see it."""
        module = module_at(MODULE)
        module.restart(module.generation)

    def end_module(self) -> None:
        """Finalise the module of this process, as another user of it would."""
        module_at(MODULE)._functions.finalize()

    def _write_files(self) -> None:
        (self.folder / "softhsm2.conf").write_text(CONF.format(self.folder / "tokens"))
        self.write_pin(PIN)

    def write_pin(self, pin: str) -> None:
        self.pin_file.write_text(f"{pin}\n")
        self.pin_file.chmod(0o600)

    def make_key(self, label: str, kind: str = "EC:prime256v1", key_id: str = "01") -> None:
        self.tool("--keypairgen", "--key-type", kind, "--label", label, "--id", key_id, "--usage-sign")

    def hold(self, label: str, key: Path, key_id: str = "02") -> None:
        """Put an existing key into the token, from its PEM file."""
        public = self.folder / f"{label}.pub.der"
        public.write_bytes(from_pem(key.read_bytes()).public_key_der)
        for kind, file in (("privkey", key), ("pubkey", public)):
            self.tool("--write-object", str(file), "--type", kind, "--label", label, "--id", key_id, "--usage-sign")

    def tool(self, *arguments: str) -> None:
        """Run pkcs11-tool, logged in to the token."""
        own = ("--module", str(MODULE), "--token-label", "calls", "--login", "--pin", PIN)
        self._run("pkcs11-tool", *own, *arguments)

    def uri(self, label: str, token: str = "calls") -> str:
        return f"pkcs11:token={token};object={label}?module-path={MODULE}&pin-source=file:{self.pin_file}"

    def take_away(self) -> None:
        """Take the token away, as when an HSM is unplugged."""
        (self.folder / "tokens").rename(self.folder / "away")

    def bring_back(self) -> None:
        (self.folder / "away").rename(self.folder / "tokens")

    def end_sessions(self) -> None:
        """End all sessions that this process has with the token, as an HSM does that was restarted."""
        library = module_at(MODULE)._library
        slot = library.get_token(token_label="calls").slot.slot_id
        assert ctypes.CDLL(str(MODULE)).C_CloseAllSessions(ctypes.c_ulong(slot)) == 0

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, env={**self.variables, "PATH": "/usr/bin:/bin"})
