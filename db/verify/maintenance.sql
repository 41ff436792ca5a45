-- Verify logflume:maintenance on pg

SELECT until FROM maintenance WHERE false;
