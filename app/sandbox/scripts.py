"""What is to be played for which number; a number that nobody wrote for plays it straight."""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from app.sandbox.records import Call, Record, Script


class Scripts:
    """The parts that testers have written."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write
        self._by_number: dict[str, Script] = {}

    def remember(self, records: Iterable[Record]) -> None:
        """Take in what an earlier process wrote down."""
        for record in records:
            if isinstance(record, Script):
                self._by_number[record.number] = record

    def records(self) -> Iterator[Record]:
        """Return everything that is worth writing down again."""
        yield from self._by_number.values()

    def of(self, number: str) -> Script:
        """Return what is played for a number."""
        return self._by_number.get(number) or Script(number=number)

    def put(self, script: Script) -> None:
        """Replace what is played for a number."""
        self._by_number[script.number] = script
        self._write(script)

    def loses_answer(self, number: str, call: Call) -> bool:
        """Whether the answer to this call is to be lost; each yes is used up."""
        script = self.of(number)
        left = script.lost_answers.get(call, 0)
        if left <= 0:
            return False
        lost = {**script.lost_answers, call: left - 1}
        self.put(msgspec.structs.replace(script, lost_answers=lost))
        return True
