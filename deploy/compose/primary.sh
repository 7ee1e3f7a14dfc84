#!/usr/bin/env bash
# Run once by the Postgres image, on an empty data folder: the service's role and database, and what a standby needs. The role
# brings the limits of its sessions, for PgBouncer takes none along.
set -euo pipefail

psql --username postgres --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" \
    --set replication_password="$REPLICATION_PASSWORD" <<'SQL'
create role holdfast login password :'password';
alter role holdfast set statement_timeout = '1000ms';
alter role holdfast set lock_timeout = '800ms';
alter role holdfast set idle_in_transaction_session_timeout = '5000ms';
alter role holdfast set client_connection_check_interval = '500ms';
create database holdfast owner holdfast;
create role replicator replication login password :'replication_password';
select pg_create_physical_replication_slot('standby');
SQL
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
