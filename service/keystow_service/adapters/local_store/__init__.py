"""The object store on a local disk: durable, for a deployment on one machine.

It promises what S3 promises: nothing is visible before its commit, an acknowledged commit survives a power cut, and of
concurrent conditional commits one wins, also among several processes on the same directory.
"""

from keystow_service.adapters.local_store.store import LocalStore, open_local_store

__all__ = ["LocalStore", "open_local_store"]
