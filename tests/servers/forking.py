"""The process that forks keystow servers, for forked.py: run with the number of a socket, on which orders come.

An order is a server's environment as JSON, with the descriptor that is to be its standard error. Its process id goes
back.
"""

import gc
import json
import os
import signal
import socket
import sys
from importlib import import_module

orders = socket.socket(fileno=int(sys.argv[1]))
for name in ("keystow_service.app", "keystow_service.adapters.kms", "keystow_service.adapters.s3"):
    import_module(name)
main = import_module("keystow_service.cli").app
gc.collect()
gc.freeze()  # no child touches, and so copies, what it will never free
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
while True:
    order, output, _, _ = socket.recv_fds(orders, 1 << 16, 1)
    if not order:
        break
    if pid := os.fork():
        orders.send(str(pid).encode())
        os.close(output[0])
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    orders.close()
    os.dup2(output[0], sys.stderr.fileno())
    os.close(output[0])
    os.environ.clear()
    os.environ.update(json.loads(order))
    main(["serve"])
