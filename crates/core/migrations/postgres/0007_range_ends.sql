-- A run that is begun again keeps the ranges that are finished, so both ends of a range have to be known.

-- The last product of the range; absent: recorded before this column, so the range is priced again.
ALTER TABLE recalculation_ranges ADD COLUMN range_end TEXT COLLATE "C";
