"""The protocol between a host and a worker: bytes ↔ messages, and who may send what when.

Pure: no I/O, no event loop, no threads. ``docs/protocol.md`` specifies it for others; whoever
serves one end moves bytes, and needs four things from here:

- :class:`isthmus.wire.codec.Encoder`: a message, and the buffers that go with it, to bytes;
- :func:`isthmus.wire.codec.message_decoder`: bytes, however they were split, to messages;
- :class:`isthmus.wire.conversation.Conversation`: whether a message is in turn;
- the messages: :mod:`~isthmus.wire.handshake`, :mod:`~isthmus.wire.requests` (host to worker),
  :mod:`~isthmus.wire.callbacks` (worker to host) and :mod:`~isthmus.wire.replies` (both ways);
  :mod:`~isthmus.wire.catalogue` says which side sends which, and what answers what.

Refuses to know: sessions, processes, pickle (values are :mod:`isthmus.values`).
"""
