"""What a ZooKeeper client's program is judged by; ../README.md says in full what
passing means. A program works below /matrix-CLIENT and leaves nothing to look at
afterwards: its own library's answers are the evidence.
"""

from .runner import Run

# name, what it means; a program may take them in any order.
CHECKS = (
    ("create", "nodes with their data and every field of the stat"),
    ("set", "data and its version, which must match where one is given"),
    ("delete", "only at the version given, and only without children"),
    ("children", "the names, the parent's stat, the count of all below"),
    ("sequence", "numbers of ten digits that never fall"),
    ("ephemeral", "owned by its session, childless, gone when that closes"),
    ("expiry", "gone too when its client is killed and the timeout has passed"),
    ("container", "shown as a plain node, reaped once it is empty"),
    ("ttl", "created, and reaped after its time"),
    ("errors", "each error by its own name"),
    ("watches", "data, exists and child watches fire once, for what they are set on"),
    ("persistent", "persistent and recursive watches fire again and again"),
    ("unwatch", "a removed watch is silent; one that is not there cannot be removed"),
    ("multi", "several operations at once, with one zxid"),
    ("undone", "a failing multi changes nothing and says which operation failed"),
    ("multiread", "several reads at once, each with its own error"),
    ("acl", "permissions are enforced and shown"),
    ("auth", "digest credentials open what they should"),
    ("whoami", "the session's identities"),
    ("quota", "limits are set and listed, and what is below is counted"),
    ("large", "1,000,000 bytes of data there and back"),
    ("async", "2,000 requests outstanding, answered in order"),
    ("sync", "sync of a path"),
    ("chroot", "a client below a path sees only that"),
    ("move", "a second connection takes over the session, not with a wrong password"),
    ("lock", "one holder at a time, in the order of asking"),
    ("election", "one leader, and another when it is gone"),
    ("counter", "a shared counter loses no increment"),
    ("party", "members come and go"),
    ("cache", "a local copy follows the tree"),
    ("words", "four-letter words"),
    ("restart", "session, ephemeral and watches live through SIGTERM and a new start"),
    ("kill", "the same through SIGKILL, and nothing acknowledged is lost"),
)


class ZooKeeperRun(Run):
    CHECKS = CHECKS

    def arguments(self, running):
        return [f"127.0.0.1:{running.port}", f"/matrix-{self.client.name}", str(self.adapter.reaps_within_s)]
