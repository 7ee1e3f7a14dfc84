#!/usr/bin/env bash
# The standby's entrypoint: copies the primary into an empty data folder, then follows it.
set -euo pipefail

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    # A copy that was cut short has left files behind, and pg_basebackup wants an empty folder.
    find "$PGDATA" -mindepth 1 -delete
    PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --pgdata "$PGDATA" --host primary --username replicator \
        --write-recovery-conf --slot standby --wal-method stream --checkpoint fast
fi
# The image leaves the folder open to all, which Postgres refuses.
chmod 0700 "$PGDATA"
exec postgres -c hot_standby=on -c hot_standby_feedback=on -c max_connections=200 \
    -c recovery_min_apply_delay="$APPLY_DELAY"
