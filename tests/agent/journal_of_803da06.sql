-- An agent's journal made by the code of commit 803da06 (its Journal.record and Journal.settle), as SQL.
BEGIN TRANSACTION;
CREATE TABLE command (
  number INTEGER PRIMARY KEY,           -- the order of admission
  command_id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,                  -- agent_values.RowState
  written_wall_s REAL NOT NULL,
  record TEXT NOT NULL                  -- agent_values.Row as JSON
);
INSERT INTO "command" VALUES(1,'accepted-1','accepted',1000000000.0,'{"command_id":"accepted-1","op":"pull","state":"accepted","boot_id":"0b6f2c50-9c57-4a7e-8e1f-6f0f5ad1f5ad","written_boot_s":5.0,"written_wall_s":1000000000.0,"ttl_s":60.0,"reason":"","ended":null}');
INSERT INTO "command" VALUES(2,'rejected-1','rejected',1000000001.0,'{"command_id":"rejected-1","op":"pull","state":"rejected","boot_id":"0b6f2c50-9c57-4a7e-8e1f-6f0f5ad1f5ad","written_boot_s":6.0,"written_wall_s":1000000001.0,"ttl_s":60.0,"reason":"busy","ended":null}');
INSERT INTO "command" VALUES(3,'settled-1','settled',1000000002.0,'{"command_id":"settled-1","op":"pull","state":"settled","boot_id":"0b6f2c50-9c57-4a7e-8e1f-6f0f5ad1f5ad","written_boot_s":7.0,"written_wall_s":1000000002.0,"ttl_s":60.0,"reason":"","ended":{"status":"error","exit_code":7,"message":"bad","reason":""}}');
INSERT INTO "command" VALUES(4,'cancelled-1','cancelled',1000000003.0,'{"command_id":"cancelled-1","op":"","state":"cancelled","boot_id":"0b6f2c50-9c57-4a7e-8e1f-6f0f5ad1f5ad","written_boot_s":8.0,"written_wall_s":1000000003.0,"ttl_s":null,"reason":"","ended":null}');
INSERT INTO "command" VALUES(5,'accepted-2','accepted',1000000004.0,'{"command_id":"accepted-2","op":"pull","state":"accepted","boot_id":"0b6f2c50-9c57-4a7e-8e1f-6f0f5ad1f5ad","written_boot_s":9.0,"written_wall_s":1000000004.0,"ttl_s":60.0,"reason":"","ended":null}');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('journal_id','5d6c9c4f3f0a4f0b8f7f2f5f0a1b2c3d');
CREATE INDEX command_open ON command (number) WHERE state IN ('accepted', 'cancelled');
PRAGMA user_version = 1;
COMMIT;
