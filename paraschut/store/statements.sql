-- version
SELECT 2 AS version;
-- read_job
SELECT job."BatchID", job."JobIndex", job.state, job.priority, job.attempt, job.ending, job.complete_on_exit, job.revision, job.name, job.progress, job.progress_message, job.failure, job.absent_since, job.retried, job.resumed, job.raised, job.not_before, job.waits, job.metadata, job.extras, batch.workdir, batch.name AS batch_name FROM job JOIN batch ON batch."BatchID" = job."BatchID" WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_state
UPDATE job SET state=:state, revision=(job.revision + 1), failure=NULL, absent_since=NULL, retried=0, resumed=0, not_before=0 WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_priority
UPDATE job SET priority=:priority, revision=(job.revision + 1) WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_fields
UPDATE job SET complete_on_exit=:complete_on_exit, revision=(job.revision + 1), name=:name, metadata=:metadata, extras=:extras WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_progress
UPDATE job SET progress=:progress, progress_message=:progress_message WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_runs
UPDATE job SET state='run', failure=NULL, absent_since=NULL WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND job.attempt = :n AND job.state IN ('submit', 'run');
-- job_missing
UPDATE job SET failure=:reason WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND job.attempt = :n AND job.state IN ('submit', 'run');
-- job_ended
UPDATE job SET state='complete', failure=NULL, absent_since=NULL WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND job.attempt = :n AND job.state IN ('submit', 'run');
-- job_awaits_end
UPDATE job SET ending=:n WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_end_proved
UPDATE job SET ending=(SELECT max(open.n) AS max_1 FROM attempt AS open WHERE open."BatchID" = :batch_id AND open."JobIndex" = :job_index AND open.ended IS NULL) WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND job.ending = :n;
-- job_absent
UPDATE job SET absent_since=:since WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_to_retry
SELECT job.metadata, job.retried, job.resumed, job.raised, attempt.asked, submission.retry FROM job JOIN attempt ON attempt."BatchID" = job."BatchID" AND attempt."JobIndex" = job."JobIndex" JOIN submission ON submission.token = attempt.token WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND (job.attempt = attempt.n AND job.state IN ('submit', 'run') OR job.state = 'spawn' AND (EXISTS (SELECT 1 FROM spawn WHERE spawn."BatchID" = attempt."BatchID" AND spawn."JobIndex" = attempt."JobIndex" AND spawn."SpawnID" = attempt.spawn_id AND spawn.attempt = attempt.n)));
-- job_retries
UPDATE job SET state='init', failure=NULL, absent_since=NULL, retried=:retried, resumed=:resumed, raised=:raised, not_before=:not_before WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_not_raised
UPDATE job SET raised=NULL WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- copy_retries
UPDATE job SET retried=:retried, resumed=:resumed, raised=:raised, not_before=:not_before WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- add_event
INSERT INTO event (at, host, pid, "BatchID", "JobIndex", kind, detail) VALUES (:now, :host, :pid, :batch_id, :job_index, :kind, :detail);
-- last_edit
SELECT event.at, event.host, event.pid, event.kind FROM event WHERE event."BatchID" = :batch_id AND (event."JobIndex" = :job_index OR event."JobIndex" IS NULL) ORDER BY event.serial DESC LIMIT 1 OFFSET 0;
-- read_attempts
SELECT attempt."BatchID", attempt."JobIndex", attempt.n, attempt.token, attempt.task, attempt.host, attempt.process, attempt.asked, attempt.submitted, attempt.started, attempt.cancelled, attempt.ended, attempt.code, attempt.signal, attempt.reason, attempt.max_rss, attempt.cpu, attempt.folded, attempt.qstat, attempt.spawn_id, submission.cluster_id FROM attempt JOIN submission ON submission.token = attempt.token WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index ORDER BY attempt.n;
-- read_attempt
SELECT attempt.token, attempt.started, attempt.cancelled, attempt.ended, attempt.folded FROM attempt WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- highest_attempt
SELECT max(attempt.n) AS max_1 FROM attempt WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index;
-- open_attempts
SELECT attempt.n FROM attempt WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.ended IS NULL;
-- attempt_runs
UPDATE attempt SET host=:host, started=coalesce(attempt.started, :now) WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.ended IS NULL;
-- attempt_marked
UPDATE attempt SET host=:host, started=:started WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.ended IS NULL AND attempt.started IS NULL;
-- attempt_ends
UPDATE attempt SET started=coalesce(attempt.started, :started), ended=max(:ended, coalesce(attempt.started, :started, :ended)), code=:code, signal=:signal, reason=coalesce(attempt.reason, :reason), max_rss=:max_rss, cpu=:cpu WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.ended IS NULL;
-- attempt_reason
UPDATE attempt SET reason=:reason WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.ended IS NULL AND attempt.reason IS NULL;
-- attempt_cancelled
UPDATE attempt SET cancelled=:now, reason=coalesce(attempt.reason, :reason) WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- attempt_folded
UPDATE attempt SET folded=:folded WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- attempt_qstat
UPDATE attempt SET qstat=:qstat WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- submission_of
SELECT submission.executor, submission.token FROM submission WHERE submission.cluster_id = :cluster_id ORDER BY submission.claimed DESC LIMIT 1 OFFSET 0;
-- submission_left
SELECT 1 FROM attempt WHERE attempt.token = :token AND attempt.ended IS NULL LIMIT 1 OFFSET 0;
-- submission_settled
UPDATE submission SET settled=:now WHERE submission.token = :token;
-- submitted_as
SELECT submission.executor, submission.environment, batch.executor AS usual, batch.executor_defaults FROM attempt JOIN submission ON submission.token = attempt.token JOIN batch ON batch."BatchID" = attempt."BatchID" WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = coalesce(:n, attempt.n) ORDER BY attempt.n DESC LIMIT 1 OFFSET 0;
-- known_batch
SELECT batch.name, batch.workdir FROM batch JOIN job ON job."BatchID" = batch."BatchID" WHERE batch."BatchID" = :batch_id LIMIT 1 OFFSET 0;
-- claimable
SELECT job."BatchID", job."JobIndex", max(job.attempt, coalesce((SELECT max(attempt.n) AS max_1 FROM attempt WHERE attempt."BatchID" = job."BatchID" AND attempt."JobIndex" = job."JobIndex"), 0)) AS attempt, job.metadata, job.raised, batch.workdir, batch.name, job.not_before FROM job JOIN batch ON batch."BatchID" = job."BatchID" WHERE job.state = 'init' AND job.ending IS NULL AND (job.state NOT IN ('complete', 'collected')) AND job."BatchID" = :batch_id AND job.priority = :priority AND job.waits = 0 AND job.not_before <= :now ORDER BY job."JobIndex";
-- claimable_job
SELECT job."BatchID", job."JobIndex", max(job.attempt, coalesce((SELECT max(attempt.n) AS max_1 FROM attempt WHERE attempt."BatchID" = job."BatchID" AND attempt."JobIndex" = job."JobIndex"), 0)) AS attempt, job.metadata, job.raised, batch.workdir, batch.name, job.not_before FROM job JOIN batch ON batch."BatchID" = job."BatchID" WHERE job.state = 'init' AND job.ending IS NULL AND (job.state NOT IN ('complete', 'collected')) AND job."BatchID" = :batch_id AND job."JobIndex" = :job_index ORDER BY job."JobIndex";
-- keep_environment
INSERT OR IGNORE INTO environment (digest, variables) VALUES (:digest, :variables);
-- add_submission
INSERT INTO submission (token, executor, host, pid, boot_id, start_ticks, claimed, recorded, cluster_id, settled, environment, carries, retry) VALUES (:token, :executor, :host, :pid, :boot_id, :start_ticks, :claimed, :recorded, :cluster_id, :settled, :environment, :carries, :retry);
-- batch_limit
UPDATE batch SET max_jobs=:limit WHERE batch."BatchID" = :batch_id AND batch.max_jobs IS NOT :limit;
-- batch_taken_on
UPDATE batch SET executor=:executor, executor_defaults=:defaults, environment=:environment WHERE batch."BatchID" = :batch_id AND batch.executor IS NULL;
-- heads
SELECT head."BatchID", head.executor, head.executor_defaults, head.environment, head.max_jobs, head.top FROM (SELECT batch."BatchID" AS "BatchID", batch.executor AS executor, batch.executor_defaults AS executor_defaults, batch.environment AS environment, batch.max_jobs AS max_jobs, (SELECT max(job.priority) AS max_1 FROM job WHERE job."BatchID" = batch."BatchID" AND (job.state NOT IN ('complete', 'collected'))) AS top FROM batch LIMIT -1 OFFSET 0) AS head WHERE head.top IS NOT NULL AND (EXISTS (SELECT 1 FROM job WHERE job."BatchID" = head."BatchID" AND job.priority = head.top AND job.state = 'init' AND job.ending IS NULL AND job.waits = 0 AND job.not_before <= :now AND (job.state NOT IN ('complete', 'collected'))));
-- paused_heads
SELECT DISTINCT batch."BatchID", batch.executor, batch.executor_defaults, batch.environment, batch.max_jobs, job.priority AS top FROM job JOIN batch ON batch."BatchID" = job."BatchID" WHERE job.state = 'init' AND job.not_before > 0 AND job.not_before > :now AND job.ending IS NULL AND job.waits = 0 AND (job.state NOT IN ('complete', 'collected')) AND NOT (EXISTS (SELECT 1 FROM job AS above WHERE above."BatchID" = job."BatchID" AND (above.state NOT IN ('complete', 'collected')) AND above.priority > job.priority));
-- global_top
SELECT max(job.priority) AS max_1 FROM job WHERE (job.state NOT IN ('complete', 'collected')) AND job.priority > 100 AND job.waits = 0;
-- holders
SELECT DISTINCT +job."BatchID" AS "BatchID", job.priority FROM job WHERE (job.state NOT IN ('complete', 'collected')) AND job.priority > 100 AND job.priority > :priority AND job.waits = 0;
-- waiting_above
SELECT job."JobIndex" FROM job WHERE job."BatchID" = :batch_id AND (job.state NOT IN ('complete', 'collected')) AND job.priority > :priority AND job.waits = 1;
-- lowest_above
SELECT min(job.priority) AS min_1 FROM job WHERE job."BatchID" = :batch_id AND (job.state NOT IN ('complete', 'collected')) AND job.priority > :priority;
-- unfinished_priority
SELECT job.priority FROM job WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND (job.state NOT IN ('complete', 'collected'));
-- any_job_of
SELECT 1 FROM job WHERE job."BatchID" = :batch_id LIMIT 1 OFFSET 0;
-- active_count
SELECT count(*) AS count_1 FROM job WHERE job.state IN ('submit', 'run', 'spawn') AND job.failure IS NULL;
-- ready_count
SELECT count(*) AS count_1 FROM (SELECT 1 FROM job WHERE job."BatchID" = :batch_id AND job.priority = :priority AND job.state = 'init' AND job.ending IS NULL AND job.waits = 0 AND job.not_before <= :now AND (job.state NOT IN ('complete', 'collected')) LIMIT :most OFFSET 0) AS anon_1;
-- next_begin
SELECT min(job.not_before) AS min_1 FROM job JOIN batch ON batch."BatchID" = job."BatchID" WHERE job.state = 'init' AND job.not_before > 0 AND job.not_before > :now AND batch.executor = :executor;
-- next_begin_of
SELECT min(job.not_before) AS min_1 FROM job WHERE job.state = 'init' AND job.not_before > 0 AND job.not_before > :now AND job."BatchID" = :batch_id;
-- last_pass
SELECT event.at, event.detail FROM event WHERE event."BatchID" = :batch_id AND event.kind = :kind ORDER BY event.serial DESC LIMIT 1 OFFSET 0;
-- any_need
SELECT 1 FROM dependency LIMIT 1 OFFSET 0;
-- needs_of
SELECT dependency.needs_batch, dependency.needs_job FROM dependency WHERE dependency."BatchID" = :batch_id AND dependency."JobIndex" = :job_index;
-- add_need
INSERT OR IGNORE INTO dependency ("BatchID", "JobIndex", needs_batch, needs_job) VALUES (:batch_id, :job_index, :needs_batch, :needs_job);
-- forget_needs
DELETE FROM dependency WHERE dependency."BatchID" = :batch_id AND dependency."JobIndex" = :job_index;
-- forget_met
DELETE FROM dependency WHERE dependency.needs_batch = :needs_batch AND NOT (EXISTS (SELECT 1 FROM unmet WHERE dependency."BatchID" = unmet."BatchID" AND dependency."JobIndex" = unmet."JobIndex" AND dependency.needs_batch = unmet.needs_batch AND dependency.needs_job = unmet.needs_job));
-- job_waits
UPDATE job SET waits=(EXISTS (SELECT 1 FROM unmet WHERE job."BatchID" = unmet."BatchID" AND job."JobIndex" = unmet."JobIndex")) WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- dependents_wait
UPDATE job SET waits=(EXISTS (SELECT 1 FROM unmet WHERE job."BatchID" = unmet."BatchID" AND job."JobIndex" = unmet."JobIndex")) WHERE job.rowid IN (SELECT waiting.rowid FROM dependency JOIN job AS waiting ON waiting."BatchID" = dependency."BatchID" AND waiting."JobIndex" = dependency."JobIndex" WHERE dependency.needs_batch = :needs_batch AND dependency.needs_job = -1);
-- waiting
SELECT attempt."BatchID", attempt."JobIndex", attempt.n, attempt.token, attempt.task, attempt.asked, attempt.spawn_id, job.metadata, job.complete_on_exit, batch.workdir, submission.environment, submission.cluster_id, payload.warm FROM attempt JOIN job ON job."BatchID" = attempt."BatchID" AND job."JobIndex" = attempt."JobIndex" JOIN batch ON batch."BatchID" = attempt."BatchID" JOIN submission ON submission.token = attempt.token LEFT OUTER JOIN payload ON payload."BatchID" = attempt."BatchID" AND payload.number = attempt."JobIndex" WHERE attempt.host = :host AND attempt.started IS NULL AND attempt.ended IS NULL AND attempt.cancelled IS NULL ORDER BY attempt.rowid LIMIT :most OFFSET 0;
-- any_waiting
SELECT 1 FROM attempt WHERE attempt.host = :host AND attempt.started IS NULL AND attempt.ended IS NULL LIMIT 1 OFFSET 0;
-- any_running
SELECT 1 FROM attempt WHERE attempt.host = :host AND attempt.started IS NOT NULL AND attempt.ended IS NULL AND attempt.process IS NOT NULL LIMIT 1 OFFSET 0;
-- running
SELECT attempt."BatchID", attempt."JobIndex", attempt.n, attempt.token, attempt.task, attempt.asked, attempt.process, attempt.started, attempt.cancelled, attempt.reason, job.absent_since FROM attempt JOIN job ON job."BatchID" = attempt."BatchID" AND job."JobIndex" = attempt."JobIndex" WHERE attempt.host = :host AND attempt.started IS NOT NULL AND attempt.ended IS NULL AND attempt.process IS NOT NULL;
-- started_in
SELECT attempt."BatchID", attempt."JobIndex", attempt.n, attempt.cancelled FROM attempt WHERE attempt.host = :host AND attempt.process = :process AND attempt.started IS NOT NULL AND attempt.ended IS NULL;
-- cancelled
SELECT attempt."BatchID", attempt."JobIndex", attempt.n, attempt.process FROM attempt WHERE attempt.host = :host AND attempt.cancelled IS NOT NULL AND attempt.ended IS NULL;
-- attempt_starts
UPDATE attempt SET process=:process, started=:now WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.started IS NULL AND attempt.ended IS NULL AND attempt.cancelled IS NULL;
-- attempt_not_started
UPDATE attempt SET process=NULL, started=NULL WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.process = :process AND attempt.ended IS NULL;
-- job_not_started
UPDATE job SET state='submit' WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND job.attempt = :n AND job.state = 'run';
-- job_and_reason
SELECT CASE WHEN (job.state = 'spawn' AND spawn.attempt IS NOT NULL AND spawn.state = 'complete') THEN 'complete' ELSE job.state END AS state, CASE WHEN (job.state = 'spawn' AND spawn.attempt IS NOT NULL) THEN spawn.attempt ELSE job.attempt END AS attempt, CASE WHEN (job.state = 'spawn' AND spawn.attempt IS NOT NULL) THEN 0 ELSE job.complete_on_exit END AS complete_on_exit, attempt.reason, attempt.token, attempt.process FROM job JOIN attempt ON attempt."BatchID" = job."BatchID" AND attempt."JobIndex" = job."JobIndex" LEFT OUTER JOIN spawn ON spawn."BatchID" = attempt."BatchID" AND spawn."JobIndex" = attempt."JobIndex" AND spawn."SpawnID" = attempt.spawn_id WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- environment
SELECT environment.variables FROM environment WHERE environment.digest = :digest;
-- agent
SELECT agent.pid, agent.boot_id, agent.start_ticks, agent.state FROM agent WHERE agent.host = :host;
-- agent_state
INSERT OR REPLACE INTO agent (host, pid, boot_id, start_ticks, state, since) VALUES (:host, :pid, :boot_id, :start_ticks, :state, :now);
-- any_spawn
SELECT 1 FROM spawn LIMIT 1 OFFSET 0;
-- spawn_of_attempt
SELECT spawn."SpawnID", spawn.state FROM spawn WHERE spawn."BatchID" = :batch_id AND spawn."JobIndex" = :job_index AND spawn.attempt = :n;
-- spawns_of
SELECT spawn."SpawnID", spawn.state, attempt.n, attempt.token, attempt.task, attempt.host, attempt.started, attempt.ended, attempt.reason, attempt.asked, submission.cluster_id, submission.executor FROM spawn JOIN attempt ON attempt."BatchID" = spawn."BatchID" AND attempt."JobIndex" = spawn."JobIndex" AND attempt.n = spawn.attempt JOIN submission ON submission.token = attempt.token WHERE spawn."BatchID" = :batch_id AND spawn."JobIndex" = :job_index ORDER BY spawn."SpawnID";
-- put_spawn
INSERT OR REPLACE INTO spawn ("BatchID", "JobIndex", "SpawnID", attempt, state) VALUES (:batch_id, :job_index, :spawn_id, :n, 'spawn');
-- attempt_of_spawn
UPDATE attempt SET spawn_id=:spawn_id WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- spawn_done
UPDATE spawn SET state='complete' WHERE spawn."BatchID" = :batch_id AND spawn."JobIndex" = :job_index AND spawn.attempt = :n AND spawn.state != 'complete';
-- spawn_left
SELECT count(*) AS count_1 FROM spawn WHERE spawn."BatchID" = :batch_id AND spawn."JobIndex" = :job_index AND spawn.state != 'complete';
-- spawn_waits
UPDATE spawn SET state='init' WHERE spawn."BatchID" = :batch_id AND spawn."JobIndex" = :job_index AND spawn.attempt = :n;
-- copies_due
SELECT job."BatchID", job."JobIndex", job.not_before, batch.executor FROM job JOIN batch ON batch."BatchID" = job."BatchID" WHERE job.state IN ('submit', 'run', 'spawn') AND job.state = 'spawn' AND (EXISTS (SELECT 1 FROM spawn WHERE spawn."BatchID" = job."BatchID" AND spawn."JobIndex" = job."JobIndex" AND spawn.state = 'init'));
-- forget_spawns
DELETE FROM spawn WHERE spawn."BatchID" = :batch_id AND spawn."JobIndex" = :job_index;
-- job_spawns
UPDATE job SET state='spawn', failure=:reason WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index;
-- job_rejoins
UPDATE job SET state='run', attempt=:n, failure=NULL, absent_since=NULL WHERE job."BatchID" = :batch_id AND job."JobIndex" = :job_index AND job.state = 'spawn';
-- call_state
SELECT job.state, job.attempt, job.ending, attempt.cancelled, attempt.ended, attempt.reason FROM job JOIN attempt ON attempt."BatchID" = job."BatchID" AND attempt."JobIndex" = job."JobIndex" WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n;
-- call_taken
SELECT attempt.cancelled FROM attempt WHERE attempt."BatchID" = :batch_id AND attempt."JobIndex" = :job_index AND attempt.n = :n AND attempt.process = :process AND attempt.started = :now AND attempt.ended IS NULL;
-- add_payload
INSERT INTO payload ("BatchID", number, shared, warm, about, data) VALUES (:batch_id, :number, :shared, :warm, :about, :data);
-- payload
SELECT payload.shared, payload.about, payload.data FROM payload WHERE payload."BatchID" = :batch_id AND payload.number = :number;
-- add_result
INSERT OR REPLACE INTO result ("BatchID", "JobIndex", n, kind, summary, traceback, seconds, data, in_file) VALUES (:batch_id, :job_index, :n, :kind, :summary, :traceback, :seconds, :data, :in_file);
-- result
SELECT result."JobIndex", result.n, result.kind, result.summary, result.traceback, result.seconds, result.data, result.in_file FROM result WHERE result."BatchID" = :batch_id AND result."JobIndex" = :job_index;
-- results_since
SELECT result.serial, result."JobIndex", result.n, result.kind, result.summary, result.traceback, result.seconds, result.data, result.in_file FROM result JOIN job ON job."BatchID" = result."BatchID" AND job."JobIndex" = result."JobIndex" WHERE result.serial > :since AND +result."BatchID" = :batch_id AND job.attempt = result.n AND (job.state NOT IN ('init', 'submit')) ORDER BY result.serial;
-- stopped
SELECT job."JobIndex", job.state, job.failure, job.attempt FROM job WHERE job."BatchID" = :batch_id AND (job.failure IS NOT NULL AND job.state IN ('submit', 'run', 'spawn') OR (job.state NOT IN ('init', 'submit', 'run', 'spawn', 'complete', 'collected')) OR job.state IN ('complete', 'collected') AND NOT (EXISTS (SELECT 1 FROM result WHERE result."BatchID" = job."BatchID" AND result."JobIndex" = job."JobIndex" AND result.n = job.attempt)));
-- standing
SELECT job."JobIndex", job.state, job.failure, job.attempt FROM job WHERE job."BatchID" = :batch_id ORDER BY job."JobIndex";
-- add_name
INSERT OR IGNORE INTO name (name, "BatchID", kind, created, about) VALUES (:name, :batch_id, :kind, :now, :about);
-- tell_name
UPDATE name SET about=:about WHERE name.name = :name;
-- name
SELECT name."BatchID", name.kind, name.about FROM name WHERE name.name = :name;
