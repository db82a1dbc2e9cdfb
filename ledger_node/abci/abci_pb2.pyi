# mypy: disable-error-code="type-arg"
# ruff: noqa
# fmt: off
import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Request(_message.Message):
    __slots__ = ("echo", "flush", "info", "init_chain", "query", "check_tx", "commit", "list_snapshots", "offer_snapshot", "load_snapshot_chunk", "apply_snapshot_chunk", "prepare_proposal", "process_proposal", "finalize_block")
    ECHO_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    INIT_CHAIN_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CHECK_TX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    LIST_SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    OFFER_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LOAD_SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    APPLY_SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    PREPARE_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    PROCESS_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    FINALIZE_BLOCK_FIELD_NUMBER: _ClassVar[int]
    echo: Echo.Request
    flush: Flush.Request
    info: Info.Request
    init_chain: InitChain.Request
    query: Query.Request
    check_tx: CheckTx.Request
    commit: Commit.Request
    list_snapshots: ListSnapshots.Request
    offer_snapshot: OfferSnapshot.Request
    load_snapshot_chunk: LoadSnapshotChunk.Request
    apply_snapshot_chunk: ApplySnapshotChunk.Request
    prepare_proposal: PrepareProposal.Request
    process_proposal: ProcessProposal.Request
    finalize_block: FinalizeBlock.Request
    def __init__(self, echo: _Optional[_Union[Echo.Request, _Mapping]] = ..., flush: _Optional[_Union[Flush.Request, _Mapping]] = ..., info: _Optional[_Union[Info.Request, _Mapping]] = ..., init_chain: _Optional[_Union[InitChain.Request, _Mapping]] = ..., query: _Optional[_Union[Query.Request, _Mapping]] = ..., check_tx: _Optional[_Union[CheckTx.Request, _Mapping]] = ..., commit: _Optional[_Union[Commit.Request, _Mapping]] = ..., list_snapshots: _Optional[_Union[ListSnapshots.Request, _Mapping]] = ..., offer_snapshot: _Optional[_Union[OfferSnapshot.Request, _Mapping]] = ..., load_snapshot_chunk: _Optional[_Union[LoadSnapshotChunk.Request, _Mapping]] = ..., apply_snapshot_chunk: _Optional[_Union[ApplySnapshotChunk.Request, _Mapping]] = ..., prepare_proposal: _Optional[_Union[PrepareProposal.Request, _Mapping]] = ..., process_proposal: _Optional[_Union[ProcessProposal.Request, _Mapping]] = ..., finalize_block: _Optional[_Union[FinalizeBlock.Request, _Mapping]] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("exception", "echo", "flush", "info", "init_chain", "query", "check_tx", "commit", "list_snapshots", "offer_snapshot", "load_snapshot_chunk", "apply_snapshot_chunk", "prepare_proposal", "process_proposal", "finalize_block")
    EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    INIT_CHAIN_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CHECK_TX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    LIST_SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    OFFER_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LOAD_SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    APPLY_SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    PREPARE_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    PROCESS_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    FINALIZE_BLOCK_FIELD_NUMBER: _ClassVar[int]
    exception: Failure
    echo: Echo.Response
    flush: Flush.Response
    info: Info.Response
    init_chain: InitChain.Response
    query: Query.Response
    check_tx: CheckTx.Response
    commit: Commit.Response
    list_snapshots: ListSnapshots.Response
    offer_snapshot: OfferSnapshot.Response
    load_snapshot_chunk: LoadSnapshotChunk.Response
    apply_snapshot_chunk: ApplySnapshotChunk.Response
    prepare_proposal: PrepareProposal.Response
    process_proposal: ProcessProposal.Response
    finalize_block: FinalizeBlock.Response
    def __init__(self, exception: _Optional[_Union[Failure, _Mapping]] = ..., echo: _Optional[_Union[Echo.Response, _Mapping]] = ..., flush: _Optional[_Union[Flush.Response, _Mapping]] = ..., info: _Optional[_Union[Info.Response, _Mapping]] = ..., init_chain: _Optional[_Union[InitChain.Response, _Mapping]] = ..., query: _Optional[_Union[Query.Response, _Mapping]] = ..., check_tx: _Optional[_Union[CheckTx.Response, _Mapping]] = ..., commit: _Optional[_Union[Commit.Response, _Mapping]] = ..., list_snapshots: _Optional[_Union[ListSnapshots.Response, _Mapping]] = ..., offer_snapshot: _Optional[_Union[OfferSnapshot.Response, _Mapping]] = ..., load_snapshot_chunk: _Optional[_Union[LoadSnapshotChunk.Response, _Mapping]] = ..., apply_snapshot_chunk: _Optional[_Union[ApplySnapshotChunk.Response, _Mapping]] = ..., prepare_proposal: _Optional[_Union[PrepareProposal.Response, _Mapping]] = ..., process_proposal: _Optional[_Union[ProcessProposal.Response, _Mapping]] = ..., finalize_block: _Optional[_Union[FinalizeBlock.Response, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Echo(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("message",)
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        message: str
        def __init__(self, message: _Optional[str] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("message",)
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        message: str
        def __init__(self, message: _Optional[str] = ...) -> None: ...
    def __init__(self) -> None: ...

class Flush(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Response(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    def __init__(self) -> None: ...

class Info(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("version", "block_version", "p2p_version", "abci_version")
        VERSION_FIELD_NUMBER: _ClassVar[int]
        BLOCK_VERSION_FIELD_NUMBER: _ClassVar[int]
        P2P_VERSION_FIELD_NUMBER: _ClassVar[int]
        ABCI_VERSION_FIELD_NUMBER: _ClassVar[int]
        version: str
        block_version: int
        p2p_version: int
        abci_version: str
        def __init__(self, version: _Optional[str] = ..., block_version: _Optional[int] = ..., p2p_version: _Optional[int] = ..., abci_version: _Optional[str] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("data", "version", "app_version", "last_block_height", "last_block_app_hash")
        DATA_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        APP_VERSION_FIELD_NUMBER: _ClassVar[int]
        LAST_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
        LAST_BLOCK_APP_HASH_FIELD_NUMBER: _ClassVar[int]
        data: str
        version: str
        app_version: int
        last_block_height: int
        last_block_app_hash: bytes
        def __init__(self, data: _Optional[str] = ..., version: _Optional[str] = ..., app_version: _Optional[int] = ..., last_block_height: _Optional[int] = ..., last_block_app_hash: _Optional[bytes] = ...) -> None: ...
    def __init__(self) -> None: ...

class PublicKey(_message.Message):
    __slots__ = ("ed25519", "secp256k1")
    ED25519_FIELD_NUMBER: _ClassVar[int]
    SECP256K1_FIELD_NUMBER: _ClassVar[int]
    ed25519: bytes
    secp256k1: bytes
    def __init__(self, ed25519: _Optional[bytes] = ..., secp256k1: _Optional[bytes] = ...) -> None: ...

class ValidatorPower(_message.Message):
    __slots__ = ("public_key", "power")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    public_key: PublicKey
    power: int
    def __init__(self, public_key: _Optional[_Union[PublicKey, _Mapping]] = ..., power: _Optional[int] = ...) -> None: ...

class ConsensusParameters(_message.Message):
    __slots__ = ("block", "version")
    class Block(_message.Message):
        __slots__ = ("max_bytes", "max_gas")
        MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
        MAX_GAS_FIELD_NUMBER: _ClassVar[int]
        max_bytes: int
        max_gas: int
        def __init__(self, max_bytes: _Optional[int] = ..., max_gas: _Optional[int] = ...) -> None: ...
    class Version(_message.Message):
        __slots__ = ("app",)
        APP_FIELD_NUMBER: _ClassVar[int]
        app: int
        def __init__(self, app: _Optional[int] = ...) -> None: ...
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    block: ConsensusParameters.Block
    version: ConsensusParameters.Version
    def __init__(self, block: _Optional[_Union[ConsensusParameters.Block, _Mapping]] = ..., version: _Optional[_Union[ConsensusParameters.Version, _Mapping]] = ...) -> None: ...

class InitChain(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("time", "chain_id", "consensus_parameters", "validators", "app_state", "initial_height")
        TIME_FIELD_NUMBER: _ClassVar[int]
        CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
        CONSENSUS_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
        VALIDATORS_FIELD_NUMBER: _ClassVar[int]
        APP_STATE_FIELD_NUMBER: _ClassVar[int]
        INITIAL_HEIGHT_FIELD_NUMBER: _ClassVar[int]
        time: _timestamp_pb2.Timestamp
        chain_id: str
        consensus_parameters: ConsensusParameters
        validators: _containers.RepeatedCompositeFieldContainer[ValidatorPower]
        app_state: bytes
        initial_height: int
        def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., chain_id: _Optional[str] = ..., consensus_parameters: _Optional[_Union[ConsensusParameters, _Mapping]] = ..., validators: _Optional[_Iterable[_Union[ValidatorPower, _Mapping]]] = ..., app_state: _Optional[bytes] = ..., initial_height: _Optional[int] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("consensus_parameters", "validators", "app_hash")
        CONSENSUS_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
        VALIDATORS_FIELD_NUMBER: _ClassVar[int]
        APP_HASH_FIELD_NUMBER: _ClassVar[int]
        consensus_parameters: ConsensusParameters
        validators: _containers.RepeatedCompositeFieldContainer[ValidatorPower]
        app_hash: bytes
        def __init__(self, consensus_parameters: _Optional[_Union[ConsensusParameters, _Mapping]] = ..., validators: _Optional[_Iterable[_Union[ValidatorPower, _Mapping]]] = ..., app_hash: _Optional[bytes] = ...) -> None: ...
    def __init__(self) -> None: ...

class Query(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("data", "path", "height", "prove")
        DATA_FIELD_NUMBER: _ClassVar[int]
        PATH_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        PROVE_FIELD_NUMBER: _ClassVar[int]
        data: bytes
        path: str
        height: int
        prove: bool
        def __init__(self, data: _Optional[bytes] = ..., path: _Optional[str] = ..., height: _Optional[int] = ..., prove: _Optional[bool] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("code", "log", "key", "value", "proof", "height", "codespace")
        CODE_FIELD_NUMBER: _ClassVar[int]
        LOG_FIELD_NUMBER: _ClassVar[int]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        PROOF_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        CODESPACE_FIELD_NUMBER: _ClassVar[int]
        code: int
        log: str
        key: bytes
        value: bytes
        proof: ProofSteps
        height: int
        codespace: str
        def __init__(self, code: _Optional[int] = ..., log: _Optional[str] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., proof: _Optional[_Union[ProofSteps, _Mapping]] = ..., height: _Optional[int] = ..., codespace: _Optional[str] = ...) -> None: ...
    def __init__(self) -> None: ...

class ProofSteps(_message.Message):
    __slots__ = ("steps",)
    class Step(_message.Message):
        __slots__ = ("type", "key", "data")
        TYPE_FIELD_NUMBER: _ClassVar[int]
        KEY_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        type: str
        key: bytes
        data: bytes
        def __init__(self, type: _Optional[str] = ..., key: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[ProofSteps.Step]
    def __init__(self, steps: _Optional[_Iterable[_Union[ProofSteps.Step, _Mapping]]] = ...) -> None: ...

class CheckTx(_message.Message):
    __slots__ = ()
    class Occasion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NEW: _ClassVar[CheckTx.Occasion]
        RECHECK: _ClassVar[CheckTx.Occasion]
    NEW: CheckTx.Occasion
    RECHECK: CheckTx.Occasion
    class Request(_message.Message):
        __slots__ = ("transaction", "occasion")
        TRANSACTION_FIELD_NUMBER: _ClassVar[int]
        OCCASION_FIELD_NUMBER: _ClassVar[int]
        transaction: bytes
        occasion: CheckTx.Occasion
        def __init__(self, transaction: _Optional[bytes] = ..., occasion: _Optional[_Union[CheckTx.Occasion, str]] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("code", "data", "log", "info", "codespace")
        CODE_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        LOG_FIELD_NUMBER: _ClassVar[int]
        INFO_FIELD_NUMBER: _ClassVar[int]
        CODESPACE_FIELD_NUMBER: _ClassVar[int]
        code: int
        data: bytes
        log: str
        info: str
        codespace: str
        def __init__(self, code: _Optional[int] = ..., data: _Optional[bytes] = ..., log: _Optional[str] = ..., info: _Optional[str] = ..., codespace: _Optional[str] = ...) -> None: ...
    def __init__(self) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "attributes")
    class Attribute(_message.Message):
        __slots__ = ("key", "value", "index")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        index: bool
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., index: _Optional[bool] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    type: str
    attributes: _containers.RepeatedCompositeFieldContainer[Event.Attribute]
    def __init__(self, type: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[Event.Attribute, _Mapping]]] = ...) -> None: ...

class Validator(_message.Message):
    __slots__ = ("address", "power")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    address: bytes
    power: int
    def __init__(self, address: _Optional[bytes] = ..., power: _Optional[int] = ...) -> None: ...

class Misbehavior(_message.Message):
    __slots__ = ("kind", "validator", "height", "time", "total_power")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Misbehavior.Kind]
        DUPLICATE_VOTE: _ClassVar[Misbehavior.Kind]
        LIGHT_CLIENT_ATTACK: _ClassVar[Misbehavior.Kind]
    UNKNOWN: Misbehavior.Kind
    DUPLICATE_VOTE: Misbehavior.Kind
    LIGHT_CLIENT_ATTACK: Misbehavior.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALIDATOR_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_POWER_FIELD_NUMBER: _ClassVar[int]
    kind: Misbehavior.Kind
    validator: Validator
    height: int
    time: _timestamp_pb2.Timestamp
    total_power: int
    def __init__(self, kind: _Optional[_Union[Misbehavior.Kind, str]] = ..., validator: _Optional[_Union[Validator, _Mapping]] = ..., height: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., total_power: _Optional[int] = ...) -> None: ...

class PrepareProposal(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("max_bytes", "transactions", "local_last_commit", "misbehavior", "height", "time", "proposer_address")
        MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
        TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
        LOCAL_LAST_COMMIT_FIELD_NUMBER: _ClassVar[int]
        MISBEHAVIOR_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        PROPOSER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
        max_bytes: int
        transactions: _containers.RepeatedScalarFieldContainer[bytes]
        local_last_commit: ExtendedCommitInfo
        misbehavior: _containers.RepeatedCompositeFieldContainer[Misbehavior]
        height: int
        time: _timestamp_pb2.Timestamp
        proposer_address: bytes
        def __init__(self, max_bytes: _Optional[int] = ..., transactions: _Optional[_Iterable[bytes]] = ..., local_last_commit: _Optional[_Union[ExtendedCommitInfo, _Mapping]] = ..., misbehavior: _Optional[_Iterable[_Union[Misbehavior, _Mapping]]] = ..., height: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., proposer_address: _Optional[bytes] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("transactions",)
        TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
        transactions: _containers.RepeatedScalarFieldContainer[bytes]
        def __init__(self, transactions: _Optional[_Iterable[bytes]] = ...) -> None: ...
    def __init__(self) -> None: ...

class ProcessProposal(_message.Message):
    __slots__ = ()
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[ProcessProposal.Verdict]
        ACCEPT: _ClassVar[ProcessProposal.Verdict]
        REJECT: _ClassVar[ProcessProposal.Verdict]
    UNKNOWN: ProcessProposal.Verdict
    ACCEPT: ProcessProposal.Verdict
    REJECT: ProcessProposal.Verdict
    class Request(_message.Message):
        __slots__ = ("transactions", "proposed_last_commit", "misbehavior", "hash", "height", "time", "proposer_address")
        TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
        PROPOSED_LAST_COMMIT_FIELD_NUMBER: _ClassVar[int]
        MISBEHAVIOR_FIELD_NUMBER: _ClassVar[int]
        HASH_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        PROPOSER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
        transactions: _containers.RepeatedScalarFieldContainer[bytes]
        proposed_last_commit: CommitInfo
        misbehavior: _containers.RepeatedCompositeFieldContainer[Misbehavior]
        hash: bytes
        height: int
        time: _timestamp_pb2.Timestamp
        proposer_address: bytes
        def __init__(self, transactions: _Optional[_Iterable[bytes]] = ..., proposed_last_commit: _Optional[_Union[CommitInfo, _Mapping]] = ..., misbehavior: _Optional[_Iterable[_Union[Misbehavior, _Mapping]]] = ..., hash: _Optional[bytes] = ..., height: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., proposer_address: _Optional[bytes] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("verdict",)
        VERDICT_FIELD_NUMBER: _ClassVar[int]
        verdict: ProcessProposal.Verdict
        def __init__(self, verdict: _Optional[_Union[ProcessProposal.Verdict, str]] = ...) -> None: ...
    def __init__(self) -> None: ...

class TransactionResult(_message.Message):
    __slots__ = ("code", "data", "log", "info", "events", "codespace")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CODESPACE_FIELD_NUMBER: _ClassVar[int]
    code: int
    data: bytes
    log: str
    info: str
    events: _containers.RepeatedCompositeFieldContainer[Event]
    codespace: str
    def __init__(self, code: _Optional[int] = ..., data: _Optional[bytes] = ..., log: _Optional[str] = ..., info: _Optional[str] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., codespace: _Optional[str] = ...) -> None: ...

class CommitInfo(_message.Message):
    __slots__ = ("round", "votes")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    round: int
    votes: _containers.RepeatedCompositeFieldContainer[VoteInfo]
    def __init__(self, round: _Optional[int] = ..., votes: _Optional[_Iterable[_Union[VoteInfo, _Mapping]]] = ...) -> None: ...

class VoteInfo(_message.Message):
    __slots__ = ("validator", "block_id_flag")
    VALIDATOR_FIELD_NUMBER: _ClassVar[int]
    BLOCK_ID_FLAG_FIELD_NUMBER: _ClassVar[int]
    validator: Validator
    block_id_flag: int
    def __init__(self, validator: _Optional[_Union[Validator, _Mapping]] = ..., block_id_flag: _Optional[int] = ...) -> None: ...

class ExtendedCommitInfo(_message.Message):
    __slots__ = ("round", "votes")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    round: int
    votes: _containers.RepeatedCompositeFieldContainer[ExtendedVoteInfo]
    def __init__(self, round: _Optional[int] = ..., votes: _Optional[_Iterable[_Union[ExtendedVoteInfo, _Mapping]]] = ...) -> None: ...

class ExtendedVoteInfo(_message.Message):
    __slots__ = ("validator", "block_id_flag")
    VALIDATOR_FIELD_NUMBER: _ClassVar[int]
    BLOCK_ID_FLAG_FIELD_NUMBER: _ClassVar[int]
    validator: Validator
    block_id_flag: int
    def __init__(self, validator: _Optional[_Union[Validator, _Mapping]] = ..., block_id_flag: _Optional[int] = ...) -> None: ...

class FinalizeBlock(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("transactions", "decided_last_commit", "misbehavior", "hash", "height", "time", "proposer_address")
        TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
        DECIDED_LAST_COMMIT_FIELD_NUMBER: _ClassVar[int]
        MISBEHAVIOR_FIELD_NUMBER: _ClassVar[int]
        HASH_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        PROPOSER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
        transactions: _containers.RepeatedScalarFieldContainer[bytes]
        decided_last_commit: CommitInfo
        misbehavior: _containers.RepeatedCompositeFieldContainer[Misbehavior]
        hash: bytes
        height: int
        time: _timestamp_pb2.Timestamp
        proposer_address: bytes
        def __init__(self, transactions: _Optional[_Iterable[bytes]] = ..., decided_last_commit: _Optional[_Union[CommitInfo, _Mapping]] = ..., misbehavior: _Optional[_Iterable[_Union[Misbehavior, _Mapping]]] = ..., hash: _Optional[bytes] = ..., height: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., proposer_address: _Optional[bytes] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("events", "results", "validator_updates", "consensus_parameter_updates", "app_hash")
        EVENTS_FIELD_NUMBER: _ClassVar[int]
        RESULTS_FIELD_NUMBER: _ClassVar[int]
        VALIDATOR_UPDATES_FIELD_NUMBER: _ClassVar[int]
        CONSENSUS_PARAMETER_UPDATES_FIELD_NUMBER: _ClassVar[int]
        APP_HASH_FIELD_NUMBER: _ClassVar[int]
        events: _containers.RepeatedCompositeFieldContainer[Event]
        results: _containers.RepeatedCompositeFieldContainer[TransactionResult]
        validator_updates: _containers.RepeatedCompositeFieldContainer[ValidatorPower]
        consensus_parameter_updates: ConsensusParameters
        app_hash: bytes
        def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[TransactionResult, _Mapping]]] = ..., validator_updates: _Optional[_Iterable[_Union[ValidatorPower, _Mapping]]] = ..., consensus_parameter_updates: _Optional[_Union[ConsensusParameters, _Mapping]] = ..., app_hash: _Optional[bytes] = ...) -> None: ...
    def __init__(self) -> None: ...

class Commit(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Response(_message.Message):
        __slots__ = ("retain_height",)
        RETAIN_HEIGHT_FIELD_NUMBER: _ClassVar[int]
        retain_height: int
        def __init__(self, retain_height: _Optional[int] = ...) -> None: ...
    def __init__(self) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("height", "format", "chunks", "hash", "metadata")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    height: int
    format: int
    chunks: int
    hash: bytes
    metadata: bytes
    def __init__(self, height: _Optional[int] = ..., format: _Optional[int] = ..., chunks: _Optional[int] = ..., hash: _Optional[bytes] = ..., metadata: _Optional[bytes] = ...) -> None: ...

class ListSnapshots(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Response(_message.Message):
        __slots__ = ("snapshots",)
        SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
        snapshots: _containers.RepeatedCompositeFieldContainer[Snapshot]
        def __init__(self, snapshots: _Optional[_Iterable[_Union[Snapshot, _Mapping]]] = ...) -> None: ...
    def __init__(self) -> None: ...

class OfferSnapshot(_message.Message):
    __slots__ = ()
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[OfferSnapshot.Verdict]
        ACCEPT: _ClassVar[OfferSnapshot.Verdict]
        ABORT: _ClassVar[OfferSnapshot.Verdict]
        REJECT: _ClassVar[OfferSnapshot.Verdict]
        REJECT_FORMAT: _ClassVar[OfferSnapshot.Verdict]
        REJECT_SENDER: _ClassVar[OfferSnapshot.Verdict]
    UNKNOWN: OfferSnapshot.Verdict
    ACCEPT: OfferSnapshot.Verdict
    ABORT: OfferSnapshot.Verdict
    REJECT: OfferSnapshot.Verdict
    REJECT_FORMAT: OfferSnapshot.Verdict
    REJECT_SENDER: OfferSnapshot.Verdict
    class Request(_message.Message):
        __slots__ = ("snapshot", "app_hash")
        SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
        APP_HASH_FIELD_NUMBER: _ClassVar[int]
        snapshot: Snapshot
        app_hash: bytes
        def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., app_hash: _Optional[bytes] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("verdict",)
        VERDICT_FIELD_NUMBER: _ClassVar[int]
        verdict: OfferSnapshot.Verdict
        def __init__(self, verdict: _Optional[_Union[OfferSnapshot.Verdict, str]] = ...) -> None: ...
    def __init__(self) -> None: ...

class LoadSnapshotChunk(_message.Message):
    __slots__ = ()
    class Request(_message.Message):
        __slots__ = ("height", "format", "chunk")
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        FORMAT_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        height: int
        format: int
        chunk: int
        def __init__(self, height: _Optional[int] = ..., format: _Optional[int] = ..., chunk: _Optional[int] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("chunk",)
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        chunk: bytes
        def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...
    def __init__(self) -> None: ...

class ApplySnapshotChunk(_message.Message):
    __slots__ = ()
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[ApplySnapshotChunk.Verdict]
        ACCEPT: _ClassVar[ApplySnapshotChunk.Verdict]
        ABORT: _ClassVar[ApplySnapshotChunk.Verdict]
        RETRY: _ClassVar[ApplySnapshotChunk.Verdict]
        RETRY_SNAPSHOT: _ClassVar[ApplySnapshotChunk.Verdict]
        REJECT_SNAPSHOT: _ClassVar[ApplySnapshotChunk.Verdict]
    UNKNOWN: ApplySnapshotChunk.Verdict
    ACCEPT: ApplySnapshotChunk.Verdict
    ABORT: ApplySnapshotChunk.Verdict
    RETRY: ApplySnapshotChunk.Verdict
    RETRY_SNAPSHOT: ApplySnapshotChunk.Verdict
    REJECT_SNAPSHOT: ApplySnapshotChunk.Verdict
    class Request(_message.Message):
        __slots__ = ("index", "chunk", "sender")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        SENDER_FIELD_NUMBER: _ClassVar[int]
        index: int
        chunk: bytes
        sender: str
        def __init__(self, index: _Optional[int] = ..., chunk: _Optional[bytes] = ..., sender: _Optional[str] = ...) -> None: ...
    class Response(_message.Message):
        __slots__ = ("verdict", "refetch_chunks", "reject_senders")
        VERDICT_FIELD_NUMBER: _ClassVar[int]
        REFETCH_CHUNKS_FIELD_NUMBER: _ClassVar[int]
        REJECT_SENDERS_FIELD_NUMBER: _ClassVar[int]
        verdict: ApplySnapshotChunk.Verdict
        refetch_chunks: _containers.RepeatedScalarFieldContainer[int]
        reject_senders: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, verdict: _Optional[_Union[ApplySnapshotChunk.Verdict, str]] = ..., refetch_chunks: _Optional[_Iterable[int]] = ..., reject_senders: _Optional[_Iterable[str]] = ...) -> None: ...
    def __init__(self) -> None: ...
