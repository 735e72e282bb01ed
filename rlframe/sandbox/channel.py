"""The untrusted end of a session: a program receives messages and replies to each with a line.

Every message begins with a random token, which its reply repeats. A line that was written before the message arrived
cannot know the token, so the worker takes no line for the answer to a later message.
"""

import posix

CHUNK_BYTES = 1 << 16


class Channel:
    """Two pipes: messages of the worker, and replies to the worker."""

    def __init__(self, messages: int, replies: int) -> None:
        self.messages, self.replies = messages, replies
        self._received, self._token = b"", b""

    def receive(self) -> str:
        """Waits for the next message and returns its text. Raises EOFError once the session is closed."""
        while b"\n" not in self._received:
            chunk = posix.read(self.messages, CHUNK_BYTES)
            if not chunk:
                raise EOFError("the session is closed")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        self._token, _, message = line.partition(b" ")
        return message.decode(errors="surrogatepass")

    def reply(self, text: str) -> None:
        """Answers the message that was received last, with a text of one line. Raises ValueError, and OSError where the
        program closed the pipe."""
        if not self._token:
            raise ValueError("no message waits for a reply: call receive() before each reply()")
        if "\n" in text:
            raise ValueError("a reply is one line: write line ends as JSON does, for example")
        unsent = memoryview(b"%s %s\n" % (self._token, text.encode(errors="surrogatepass")))
        self._token = b""
        while unsent:
            unsent = unsent[posix.write(self.replies, unsent) :]
