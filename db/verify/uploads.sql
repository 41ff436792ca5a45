-- Verify logflume:uploads on pg

SELECT uploads FROM logs WHERE false;
