-- identifier and url are needed; leave out other columns that you have no use for.
CREATE TABLE images (
  identifier TEXT PRIMARY KEY, url TEXT NOT NULL, max_unauthorised INTEGER, roles TEXT, rights TEXT, filename TEXT
) WITHOUT ROWID;
CREATE INDEX images_by_url ON images (url);  -- for `special derive --queue` and for inventories
INSERT INTO images VALUES
  ('leaf', '/srv/more-masters/2019/0001.tif', NULL, NULL, 'https://creativecommons.org/publicdomain/mark/1.0/', 'leaf'),
  ('letter', '/srv/more-masters/2019/0002.tif', 400, '["staff"]', NULL, NULL);  -- others than staff: up to 400 pixels
