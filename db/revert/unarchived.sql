-- Revert logflume:unarchived from pg

DROP INDEX logs_unarchived;
