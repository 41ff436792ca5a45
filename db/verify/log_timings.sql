-- Verify logflume:log_timings on pg

SELECT l.step_count, t.place, t.timer, t.event, t.fold, t.line, t.start_ns, t.finish_ns
FROM logs l JOIN log_timings t ON t.log_id = l.id WHERE false;
