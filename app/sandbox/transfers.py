"""Money that merchants send to people; pure but for the journal it is handed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from app.kernel.clock import Clock
from app.sandbox.book import Refused
from app.sandbox.records import (
    Record,
    Transfer,
    TransferBatch,
    TransferPlay,
    TransferStatus,
)
from app.sandbox.scripts import Scripts
from app.sandbox.settings import SandboxSettings

_DAY_MS: Final = 86_400_000


class TransferBook:
    """Transfers, alone or in batches."""

    def __init__(
        self,
        settings: SandboxSettings,
        clock: Clock,
        write: Callable[[Record], None],
        scripts: Scripts,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._write = write
        self._scripts = scripts
        self._transfers: dict[str, Transfer] = {}
        self._batches: dict[str, TransferBatch] = {}

    def remember(self, records: Iterable[Record]) -> None:
        """Take in what an earlier process wrote down, but for what is too old."""
        oldest_ms = self._clock.now_ms() - self._settings.keep_days * _DAY_MS
        for record in records:
            if isinstance(record, Transfer) and record.created_at_ms >= oldest_ms:
                self._transfers[record.key] = record
            elif isinstance(record, TransferBatch) and record.created_at_ms >= oldest_ms:
                self._batches[record.key] = record

    def records(self) -> Iterator[Record]:
        """Return everything that is worth writing down again."""
        yield from self._batches.values()
        yield from self._transfers.values()

    def send(self, asked: Transfer, after_ms: int) -> Transfer | Refused:
        """
        Send money; the same request again is the same transfer.

        Args:
            asked: its `ready_at_ms` and `ends_as` are decided here, by the script.
            after_ms: how long a transfer takes that is not held.
        """
        known = self._transfers.get(asked.key)
        if known is not None:
            return known if known.content == asked.content else Refused.NUMBER_USED
        play = self._scripts.of(asked.number).transfer
        failed = play is TransferPlay.FAIL
        held = play is TransferPlay.HELD
        ready_at_ms = self._clock.now_ms() + after_ms
        return self._keep(
            msgspec.structs.replace(
                asked,
                ready_at_ms=None if held else ready_at_ms,
                ends_as=TransferStatus.FAILED if failed else TransferStatus.SUCCEEDED,
            )
        )

    def send_batch(
        self, asked: TransferBatch, transfers: Iterable[Transfer]
    ) -> TransferBatch | Refused:
        """Send many; the same request again is the same batch."""
        known = self._batches.get(asked.key)
        if known is not None:
            return known if known.content == asked.content else Refused.NUMBER_USED
        self._batches[asked.key] = asked
        self._write(asked)
        for transfer in transfers:
            self.send(transfer, self._settings.transfer_after_ms)
        return asked

    def find(self, number: str, batch: str = "") -> Transfer | Refused:
        """Return a transfer."""
        return self._transfers.get(f"{batch}/{number}", Refused.NOT_FOUND)

    def find_by_provider_number(self, provider_number: str) -> Transfer | Refused:
        """Return the transfer that the gateway gave this number."""
        for transfer in self._transfers.values():
            if transfer.provider_number == provider_number:
                return transfer
        return Refused.NOT_FOUND

    def find_batch(self, number: str) -> TransferBatch | Refused:
        """Return a batch."""
        return self._batches.get(number, Refused.NOT_FOUND)

    def all(self) -> list[Transfer]:
        """Return every transfer, oldest first."""
        return list(self._transfers.values())

    def of_batch(self, batch: TransferBatch) -> list[Transfer]:
        """Return the transfers of a batch, in the order they came."""
        return [self._transfers[f"{batch.number}/{number}"] for number in batch.transfers]

    def end(self, transfer: Transfer, ends_as: TransferStatus) -> Transfer:
        """Say how a transfer ends, and that it has ended now."""
        ready_at_ms = self._clock.now_ms()
        return self._keep(
            msgspec.structs.replace(transfer, ready_at_ms=ready_at_ms, ends_as=ends_as)
        )

    def _keep(self, transfer: Transfer) -> Transfer:
        self._transfers[transfer.key] = transfer
        self._write(transfer)
        return transfer
