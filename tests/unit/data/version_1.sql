CREATE TABLE batch (
    "BatchID" INTEGER NOT NULL,
    name TEXT,
    data_type TEXT,
    created REAL NOT NULL,
    executor TEXT,
    environment TEXT,
    workdir TEXT,
    PRIMARY KEY ("BatchID")
);
CREATE TABLE environment (
    digest TEXT NOT NULL,
    variables TEXT NOT NULL,
    PRIMARY KEY (digest)
);
CREATE TABLE agent (
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    start_ticks INTEGER NOT NULL,
    state TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (host)
);
CREATE TABLE event (
    serial INTEGER NOT NULL,
    at REAL NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    "BatchID" INTEGER NOT NULL,
    "JobIndex" INTEGER,
    kind TEXT NOT NULL,
    detail TEXT,
    PRIMARY KEY (serial)
);
CREATE INDEX event_of_job ON event ("BatchID", "JobIndex");
CREATE TABLE job (
    "BatchID" INTEGER NOT NULL,
    "JobIndex" INTEGER NOT NULL,
    state TEXT NOT NULL,
    priority BLOB NOT NULL,
    attempt INTEGER DEFAULT '0' NOT NULL,
    ending INTEGER,
    complete_on_exit INTEGER DEFAULT '0' NOT NULL,
    revision INTEGER DEFAULT '0' NOT NULL,
    name TEXT,
    progress REAL,
    progress_message TEXT,
    failure TEXT,
    absent_since REAL,
    metadata TEXT NOT NULL,
    extras BLOB,
    PRIMARY KEY ("BatchID", "JobIndex"),
    FOREIGN KEY("BatchID") REFERENCES batch ("BatchID")
);
CREATE INDEX job_unfinished ON job ("BatchID", priority, state, ending, "JobIndex") WHERE (state NOT IN ('complete', 'collected'));
CREATE INDEX job_global ON job (priority) WHERE (state NOT IN ('complete', 'collected')) AND priority > 100;
CREATE INDEX job_by_state ON job ("BatchID", state, "JobIndex");
CREATE INDEX job_active ON job ("BatchID", "JobIndex", failure) WHERE state IN ('submit', 'run', 'spawn');
CREATE TABLE submission (
    token TEXT NOT NULL,
    executor TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    start_ticks INTEGER NOT NULL,
    claimed REAL NOT NULL,
    recorded REAL,
    cluster_id TEXT,
    settled REAL,
    seen INTEGER,
    environment TEXT,
    PRIMARY KEY (token),
    FOREIGN KEY(environment) REFERENCES environment (digest)
);
CREATE INDEX submission_unrecorded ON submission (token) WHERE recorded IS NULL AND settled IS NULL;
CREATE INDEX submission_open ON submission (executor, token) WHERE settled IS NULL;
CREATE TABLE attempt (
    "BatchID" INTEGER NOT NULL,
    "JobIndex" INTEGER NOT NULL,
    n INTEGER NOT NULL,
    token TEXT NOT NULL,
    task INTEGER NOT NULL,
    host TEXT,
    process TEXT,
    asked TEXT,
    submitted REAL NOT NULL,
    started REAL,
    cancelled REAL,
    ended REAL,
    code INTEGER,
    signal INTEGER,
    reason TEXT,
    max_rss INTEGER,
    cpu REAL,
    folded INTEGER DEFAULT '0' NOT NULL,
    qstat TEXT,
    PRIMARY KEY ("BatchID", "JobIndex", n),
    FOREIGN KEY("BatchID", "JobIndex") REFERENCES job ("BatchID", "JobIndex"),
    FOREIGN KEY(token) REFERENCES submission (token)
);
CREATE INDEX attempt_of_token ON attempt (token, task);
CREATE INDEX attempt_running ON attempt (host) WHERE started IS NOT NULL AND ended IS NULL;
CREATE INDEX attempt_waiting ON attempt (host) WHERE started IS NULL AND ended IS NULL;
CREATE INDEX attempt_cancelled ON attempt (host) WHERE cancelled IS NOT NULL AND ended IS NULL;
