"""A session in a process of its own: the child, its supervisor, and what stands for the session.

In the child: :mod:`~isthmus.worker.child` starts, :mod:`~isthmus.worker.link` is its end of the
socket, :mod:`~isthmus.worker.service` does what the host asks, and
:mod:`~isthmus.worker.remote_capability` stands for functions of the host.

In the host: :mod:`~isthmus.worker.session` is what users hold, :mod:`~isthmus.worker.lives` the
children that it has had, and :mod:`~isthmus.worker.supervisor` one of them, made of a process
(:mod:`~isthmus.worker.process`), a connection (:mod:`~isthmus.worker.connection`), the cells in
flight (:mod:`~isthmus.worker.flight`) and calls of the host's functions
(:mod:`~isthmus.worker.callbacks`). A process is started as a program
(:mod:`~isthmus.worker.spawned`), or forked (:mod:`~isthmus.worker.forked`) by a fork server, which
the host holds as :mod:`~isthmus.worker.fork_server` and which is :mod:`~isthmus.worker.zygote`
itself.

It protects the host from crashes and hangs of cells. It is no sandbox: a worker may do whatever its
user may.
"""
