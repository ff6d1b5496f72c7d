"""Where browsers and merchants find the gateway."""


class Address:
    """A URL that is known once the port is bound, unless it was said beforehand."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def bind(self, host: str, port: int) -> None:
        """Take the port that was bound, where nobody said another address."""
        self.url = self.url or f"http://{host}:{port}"

    def page_of(self, number: str) -> str:
        """Return the page on which a payment is paid."""
        return f"{self.url}/pay/{number}"
