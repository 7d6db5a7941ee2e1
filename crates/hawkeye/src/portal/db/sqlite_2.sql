-- From version 1 to 2: events say why they were sent.
-- That func holds 512 characters now needs nothing here: SQLite keeps the declared length of a column as a remark only.
ALTER TABLE events ADD COLUMN explanation TEXT;
