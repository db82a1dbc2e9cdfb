"""Reasons why the ledger refuses a transaction: a number, a name and a sentence each, the same on every node.

The numbers are the codes of ABCI results. The header's last_results_hash commits to them, so their meaning must
never change. The sentences hold nothing that comes from the transaction.

docs/spec/state.md#refusals specifies it.
"""

from enum import Enum

from voice_dpki.errors import PeerError

FIRST_CONTENT_CODE = 100
"""The lowest code of a transaction that has a valid sender, and for which the block has room."""

_ROLE = "by a key that the ledger holds for the member"


class Refusal(Enum):
    """A reason to refuse.

    Codes below 100 keep a transaction out of blocks: it has no valid sender, or the block has no room for it. Codes
    from 100 concern a certificate, from 200 its status, from 300 proposals and members.
    """

    TOO_LARGE = (1, "transaction-too-large", "The transaction has more than 65536 bytes.")
    MALFORMED = (2, "malformed", "The bytes are not a transaction in deterministic CBOR.")
    VERSION = (3, "unknown-version", "The transaction has a version that this ledger does not know.")
    KIND = (4, "unknown-kind", "The transaction is of a kind that this ledger does not know.")
    CHAIN = (5, "wrong-chain", "The transaction was made for another ledger.")
    MEMBER = (6, "unknown-member", "The transaction is made in the name of an organisation that is no member.")
    SIGNER = (7, "unknown-signer", f"The transaction is not signed {_ROLE} in whose name it is made.")
    SIGNATURE = (8, "bad-signature", "The transaction's signature does not verify.")
    SUSPENDED = (9, "suspended-member", "The member in whose name the transaction is made is suspended.")
    OWNER = (10, "unknown-owner", "No certificate with this digest is recorded under the key that signs.")
    FORM = (
        12,
        "signature-form",
        "The transaction must have exactly one signature, and s of an ECDSA signature at most half of the order.",
    )
    BLOCK_FULL = (11, "block-full", "The block holds as many new certificates as it may; a later one has room.")

    CERTIFICATE_TOO_LARGE = (100, "certificate-too-large", "The certificate has more than 8192 bytes.")
    CERTIFICATE_MALFORMED = (
        101,
        "certificate-malformed",
        "The certificate is not one well-formed DER certificate.",
    )
    CERTIFICATE_VERSION = (102, "certificate-version", "The certificate is not X.509 version 3.")
    CERTIFICATE_ALGORITHM = (
        103,
        "certificate-algorithm",
        "The certificate is not signed by ECDSA or RSA with SHA-256, SHA-384 or SHA-512.",
    )
    CERTIFICATE_KEY = (
        104,
        "certificate-weak-key",
        "The certificate's key is neither on P-256 nor RSA of 2048 to 8192 bits.",
    )
    CERTIFICATE_SELF_SIGNED = (
        105,
        "certificate-not-self-signed",
        "The certificate's issuer is not its subject.",
    )
    CERTIFICATE_SIGNATURE = (
        106,
        "certificate-signature",
        "The certificate's signature does not verify under its own key.",
    )
    CERTIFICATE_VALIDITY = (
        107,
        "certificate-validity",
        "The certificate's validity is empty or longer than 40 years.",
    )
    CERTIFICATE_NAME = (
        108,
        "certificate-name",
        "A name in the certificate's subject is repeated, too long or not printable.",
    )
    CERTIFICATE_EXTENSION = (
        109,
        "certificate-critical-extension",
        "The certificate has a critical extension that the profile does not know.",
    )
    CERTIFICATE_TN_AUTH_LIST = (110, "certificate-tn-auth-list", "The certificate's TNAuthList is malformed.")
    CERTIFICATE_KEY_USAGE = (
        111,
        "certificate-key-usage",
        "The certificate shows no identity and organisation, and its key usage is not limited to keyAgreement, "
        "keyEncipherment and dataEncipherment.",
    )
    CERTIFICATE_PROFILE = (119, "certificate-profile", "The certificate breaks another rule of the profile.")

    ORGANIZATION = (
        120,
        "wrong-organization",
        "The organisation in the certificate's subject is not the one that endorses it.",
    )
    NUMBERS = (
        121,
        "numbers-outside-ranges",
        "The certificate names telephone numbers or service provider codes that its organisation is not allotted.",
    )
    NAMES = (
        122,
        "names-outside-domains",
        "The certificate's alternative names are not all SIP, SIPS, TEL or URN URIs and DNS names within the "
        "domains and number ranges of its organisation.",
    )
    POSSESSION = (
        160,
        "no-possession",
        "The certificate shows no identity and organisation, and its extension for that does not name this ledger "
        "and this member.",
    )
    CONSTRAINTS = (
        161,
        "claim-constraints",
        "The certificate has a TNAuthList, and claim constraints that cannot be read: it could sign no call.",
    )
    RECORDED = (123, "already-recorded", "The certificate is already recorded.")
    KEY_IN_USE = (124, "key-of-another-organization", "The certificate's key is in use by another organisation.")
    EXPIRED = (125, "expired", "The certificate has expired.")
    NOT_YET_VALID = (126, "not-yet-valid", "The certificate becomes valid more than 30 days from now.")

    TOO_MANY_NAMES = (127, "too-many-names", "The certificate has more than 128 names and blocks of numbers.")
    NAME_FULL = (
        128,
        "name-full",
        "The organisation has 256 certificates with one of these names on the ledger already.",
    )
    QUOTA_HOUR = (129, "hourly-quota", "The member has had as many certificates recorded in this hour as it may.")
    QUOTA_TOTAL = (130, "total-quota", "The member has as many certificates on the ledger as it may.")

    COMPROMISED = (
        131,
        "compromised-key",
        "The key was revoked as compromised: no certificate with it is recorded or valid again.",
    )
    MANY_NUMBERS = (
        133,
        "too-many-single-numbers",
        "The certificate names more than 60 numbers that its organisation holds one by one.",
    )
    KEY_FULL = (132, "key-full", "256 certificates with this key are on the ledger already.")

    NAME_IP_ADDRESS = (
        140,
        "ip-address-name",
        "An IP address is among the certificate's names; the ledger allots none.",
    )
    NAME_EMAIL = (141, "email-name", "An e-mail address is among the certificate's names; the ledger allots none.")
    NAME_DIRECTORY = (142, "directory-name", "A directory name is among the certificate's alternative names.")
    NAME_OTHER = (143, "other-name", "A name of type otherName is among the certificate's names.")
    NAME_REGISTERED_ID = (144, "registered-id-name", "A registered ID is among the certificate's names.")
    NAME_ISSUER = (145, "issuer-name", "The certificate has alternative names of its issuer.")
    NAME_SUBJECT = (
        146,
        "subject-attribute",
        "The certificate's subject has another attribute than organisation, common name, country, state, locality "
        "and serial number, or one of them in another form.",
    )
    NAME_WILDCARD = (147, "wildcard-name", "A host among the certificate's names has a wildcard.")
    NAME_HOST = (
        148,
        "host-name-form",
        "A host among the certificate's names is not written as labels of letters, digits and hyphens with single "
        "dots between them, or is an address.",
    )
    NAME_LABEL = (
        149,
        "host-name-label",
        "A host's label has hyphens as its third and fourth character and is no A-label.",
    )
    URI_KIND = (
        150,
        "uri-kind",
        "A URI among the certificate's names is none of sip, sips, tel, urn:uuid, urn:dev and urn:gsma.",
    )
    URI_ESCAPE = (151, "uri-escape", "A URI among the certificate's names has an escape, such as %2B.")
    URI_PARAMETERS = (
        152,
        "uri-parameters",
        "A URI among the certificate's names has parameters, header fields or a fragment.",
    )
    URI_PASSWORD = (153, "uri-password", "A URI among the certificate's names has a password.")
    URI_PORT = (154, "uri-port", "A URI among the certificate's names has a port.")
    URI_FORM = (155, "uri-form", "A URI among the certificate's names is not written as the ledger reads one.")
    URI_NUMBER = (
        156,
        "uri-number",
        "A telephone number in a URI among the certificate's names is not written as + and 1 to 15 digits.",
    )
    COMMON_NAME = (
        157,
        "common-name",
        "The certificate's common name is a URI, a host or number that its organisation does not hold, or a number "
        "that the certificate does not name elsewhere.",
    )
    NAME_FORM = (
        158,
        "common-name-form",
        "The certificate's common name is not written as RFC 4518 prepares it: in NFKC, with single spaces, and "
        "without characters that show nothing.",
    )
    NAME_SCRIPTS = (
        159,
        "common-name-scripts",
        "The certificate's common name mixes scripts whose letters look alike.",
    )

    NOT_RECORDED = (200, "not-recorded", "No certificate with this digest is recorded.")
    NOT_OWNER = (201, "not-the-owner", "The certificate was recorded by another organisation.")
    REVISION = (202, "wrong-revision", "The certificate's status has changed since this change was signed.")
    TRANSITION = (203, "transition-not-allowed", "The certificate's present status does not allow this change.")
    REASON = (204, "unknown-reason", "The reason given is none of those in RFC 5280 section 5.3.1.")
    OUTRANKED = (
        205,
        "outranked",
        "The certificate was suspended by a higher authority, which alone can resume it.",
    )
    NOT_VALID = (206, "not-valid", "The certificate to be renewed is suspended, revoked or expired.")
    RENEWED = (207, "already-renewed", "The certificate has been renewed already.")
    OWNER_SIGNATURE = (
        208,
        "owner-signature",
        "The new certificate is not signed for by the key of the one that it replaces.",
    )
    NO_OVERLAP = (
        209,
        "no-overlap",
        "The new certificate becomes valid only after the one that it replaces expires.",
    )
    OTHER_SUBJECT = (210, "other-subject", "The new certificate has another subject than the one that it replaces.")

    TOO_MANY_FALL = (
        211,
        "too-many-fall",
        "More than 4000 other certificates would be revoked with those that the proposal names.",
    )

    NOT_OPERATOR = (300, "not-an-operator", "Only operators propose and vote.")
    CHANGE = (301, "unknown-change", "The proposal asks for nothing that this ledger knows how to do.")
    DEADLINE = (302, "bad-deadline", "The proposal ends in the past, or later than the ledger allows.")
    PROPOSED = (303, "already-proposed", "The very same proposal has been made already.")
    PROPOSALS = (304, "too-many-proposals", "The operator, or the ledger, has as many proposals as it may.")
    NO_PROPOSAL = (305, "unknown-proposal", "There is no such proposal.")
    NOT_OPEN = (306, "not-open", "The proposal is decided, or its time is over.")
    VOTED = (307, "already-voted", "The operator has voted on this proposal.")
    MEMBER_REVISION = (310, "wrong-member-revision", "The member is not, or no more, as the proposal assumes.")
    DOMAIN_TAKEN = (311, "domain-taken", "A domain is another member's, or lies below or above one of its.")
    RANGE_TAKEN = (312, "range-taken", "A number range overlaps with one that is allotted already.")
    SPC_TAKEN = (313, "spc-taken", "A service provider code is another member's.")
    VALIDATOR_TAKEN = (314, "validator-taken", "A validator key is another member's.")
    ENDORSING_KEY_TAKEN = (315, "endorsing-key-taken", "An endorsing key is in use by another organisation.")
    NO_VALIDATORS = (316, "no-validators", "The change would leave the ledger without validators or operators.")
    MEMBERS = (317, "too-many-members", "The ledger has as many members or validators as it may.")
    RULES = (
        319,
        "rules-decided",
        "The ledger follows this version of the rules or a later one, or a change of them is decided already.",
    )
    VALIDATOR_KEY = (
        330,
        "bad-validator-key",
        "A validator's key is no Ed25519 key under which only its holder can sign.",
    )
    WITHDRAWN = (331, "withdrawn", "Its proposer has withdrawn the proposal.")
    NOT_SUSPENDED = (332, "not-suspended", "The operators have not suspended it.")
    ORGANIZATION_FORM = (
        340,
        "organization-form",
        "The organisation's name is not written as RFC 4518 prepares it: in NFKC, with single spaces, and without "
        "characters that show nothing.",
    )
    ORGANIZATION_SCRIPTS = (
        341,
        "organization-scripts",
        "The organisation's name mixes scripts whose letters look alike.",
    )
    ORGANIZATION_TAKEN = (342, "organization-taken", "The organisation's name looks like another member's.")
    SHARE = (
        343,
        "too-much-power",
        "The change would give one operator too large a share of the validators.",
    )
    SEQUENCE = (
        350,
        "wrong-sequence",
        "The sequence number is not the count of the member's earlier transactions about numbers.",
    )
    RECIPIENT = (
        351,
        "no-recipient",
        "The recipient is no member, is suspended or takes no numbers, or it declares for the second time that it "
        "takes numbers.",
    )
    NOT_HELD = (352, "number-not-held", "The member does not hold one of the numbers.")
    NUMBERS_ROOM = (
        353,
        "no-room-for-numbers",
        "The member's record has no room to say that it holds numbers one by one.",
    )
    QUORUM = (318, "no-quorum", "When it was due, the change had no quorum of operators any more.")

    def __init__(self, code: int, kebab: str, sentence: str) -> None:
        self.code = code
        self.kebab = kebab
        self.sentence = sentence


class Refused(PeerError):
    """A transaction is refused; `refusal` is the reason."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


PROFILE_REFUSALS = {
    "too-large": Refusal.CERTIFICATE_TOO_LARGE,
    "malformed": Refusal.CERTIFICATE_MALFORMED,
    "version": Refusal.CERTIFICATE_VERSION,
    "algorithm": Refusal.CERTIFICATE_ALGORITHM,
    "weak-key": Refusal.CERTIFICATE_KEY,
    "self-signed": Refusal.CERTIFICATE_SELF_SIGNED,
    "signature": Refusal.CERTIFICATE_SIGNATURE,
    "validity": Refusal.CERTIFICATE_VALIDITY,
    "name": Refusal.CERTIFICATE_NAME,
    "critical-extension": Refusal.CERTIFICATE_EXTENSION,
    "tn-auth-list": Refusal.CERTIFICATE_TN_AUTH_LIST,
    "key-usage": Refusal.CERTIFICATE_KEY_USAGE,
}
"""The refusal for each code of `voice_dpki.x509.profile.ProfileError`."""

CONFLICT_REFUSALS = {
    "domain": Refusal.DOMAIN_TAKEN,
    "spc": Refusal.SPC_TAKEN,
    "validator": Refusal.VALIDATOR_TAKEN,
    "endorsing-key": Refusal.ENDORSING_KEY_TAKEN,
    "range": Refusal.RANGE_TAKEN,
}
"""The refusal for each kind of `voice_dpki.ledger.members.ConflictError` that a change of one member can cause."""
