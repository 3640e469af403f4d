"""What can go wrong on the wire, told apart by who broke the rules.

ProtocolError            the connection cannot go on
├── RemoteError          the peer broke the rules: close that connection, no other
│   ├── FrameError       length, kind or framing is not allowed here
│   ├── SchemaError      the frame is well formed, its content is not
│   └── AuthError        the peer could not prove who it is
└── LocalError           this side asked for something the state does not allow: a bug here
"""


class ProtocolError(Exception):
    """The connection on which it happened cannot go on."""


class RemoteError(ProtocolError):
    """The peer sent what it must not send."""


class FrameError(RemoteError):
    """A length, kind or frame order that the receiver does not allow."""


class SchemaError(RemoteError):
    """A frame whose content is not a known message with fields of the declared types and limits."""


class AuthError(RemoteError):
    """A peer that did not prove knowledge of the run's secret, or speaks for the wrong run."""


class LocalError(ProtocolError):
    """A call that the state of this side does not allow."""
