"""The searchable catalogue: names and dates from the ledger's certificates, in SQLite, derived from stored blocks.

Where blocks are missing that it has not read, because the node removed them or began with a snapshot, it reads the
certificates of the state instead: those that have expired and left it are then not found.
It proves and decides nothing: a caller that finds a digest here asks for its status. It has its own height and
catches up at each search, so that a node without searches does not pay for it.
"""

from pathlib import Path

from sqlalchemy.exc import DatabaseError
from sqlmodel import Field, Session, SQLModel, col, create_engine, or_, select

from ledger_node.keep.store import Store, StoreView
from voice_dpki.ledger.transactions import Transaction, certificates_in
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import CertificateProfile, read_profile

FILE = "catalogue.sqlite"
MAX_RESULTS = 100
BLOCKS_PER_COMMIT = 500
CERTIFICATES_PER_COMMIT = 1000


class Entry(SQLModel, table=True):
    """The catalogue's row for one certificate."""

    __tablename__ = "certificate"

    digest: str = Field(primary_key=True)
    organization: str = Field(index=True)
    common_name: str | None = Field(default=None, index=True)
    names: str
    """URIs and DNS names, one a line."""
    not_before_s: int
    not_after_s: int
    recorded_height: int


class Progress(SQLModel, table=True):
    """The height of the last block in the catalogue."""

    id: int = Field(default=1, primary_key=True)
    height: int = 0


class Catalogue:
    """The catalogue of one store. Its methods block; one may be called at a time, from any thread."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._store = store
        self._path = folder / FILE
        self._engine = create_engine(f"sqlite:///{self._path}")

    def search(self, subject: str | None, organization: str | None) -> dict[str, object]:
        """Find certificates by part of a name and by organisation, newest first, at most MAX_RESULTS.

        A damaged catalogue is deleted and rebuilt from the blocks.
        """
        try:
            return self._search(subject, organization)
        except DatabaseError:
            self.close()
            self._path.unlink()
            return self._search(subject, organization)

    def _search(self, subject: str | None, organization: str | None) -> dict[str, object]:
        SQLModel.metadata.create_all(self._engine)
        query = select(Entry).order_by(col(Entry.recorded_height).desc(), col(Entry.digest)).limit(MAX_RESULTS)
        if organization:
            query = query.where(Entry.organization == organization)
        if subject:
            named = (col(name).contains(subject, autoescape=True) for name in (Entry.common_name, Entry.names))
            query = query.where(or_(*named))
        with Session(self._engine) as session, self._store.snapshot() as view:
            height = self._catch_up(session, view)
            return {"height": height, "results": [_result(entry, view) for entry in session.exec(query)]}

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def _catch_up(self, session: Session, view: StoreView) -> int:
        progress = session.get(Progress, 1) or Progress()
        session.add(progress)
        if progress.height + 1 < view.first:
            _merge_state(session, view)
            progress.height = view.first - 1
            session.commit()
        while progress.height < view.height:
            for height in range(progress.height + 1, min(progress.height + BLOCKS_PER_COMMIT, view.height) + 1):
                for entry in _entries(view, height):
                    session.merge(entry)
                progress.height = height
            session.commit()
        return progress.height


def _merge_state(session: Session, view: StoreView) -> None:
    """Enter all certificates of the state."""
    for number, (digest, der) in enumerate(view.items(b"certificates"), 1):
        record = view.record(CertDigest(digest))
        if record is not None:
            session.merge(_entry(read_profile(der), record.organization, record.recorded_height))
        if number % CERTIFICATES_PER_COMMIT == 0:
            session.commit()


def _entries(view: StoreView, height: int) -> list[Entry]:
    """Return the entries for the certificates that a block recorded."""
    block = view.block(height)
    if block is None:
        return []
    accepted = [raw for raw, code in zip(block.transactions, block.codes, strict=True) if code == 0]
    bodies = [Transaction.parse(raw).body for raw in accepted]
    return [_entry(read_profile(der), body.by, height) for body in bodies for der in certificates_in(body)]


def _entry(profile: CertificateProfile, organization: str, height: int) -> Entry:
    return Entry(
        digest=profile.digest.hex(),
        organization=organization,
        common_name=profile.common_name,
        names="\n".join((*profile.uris, *profile.dns_names)),
        not_before_s=profile.not_before_s,
        not_after_s=profile.not_after_s,
        recorded_height=height,
    )


def _result(entry: Entry, view: StoreView) -> dict[str, object]:
    """Return an entry with its status, which only the store has: None if the record was pruned."""
    record = view.record(CertDigest(bytes.fromhex(entry.digest)))
    return {**entry.model_dump(), "names": entry.names.splitlines(), "status": record.status if record else None}
