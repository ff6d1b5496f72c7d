"""The codes of groups that leaders have shared, and which of them are still worth a try. Pure."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class SharedCodes:
    """Codes in the order in which they were shared; everybody reads the same list."""

    _open: list[str] = field(default_factory=list)

    def share(self, code: str) -> None:
        """Show a code to everybody."""
        self._open.append(code)

    def pick(self) -> str | None:
        """
        Give the oldest code that nobody was refused with; None when there is none.

        So the crowd comes to one group, and many want its last seat at once.
        """
        return self._open[0] if self._open else None

    def strike(self, code: str) -> None:
        """Take away a code that has no seat left; twice is once."""
        if code in self._open:
            self._open.remove(code)
