ALTER TABLE nats_operator DROP COLUMN closed_at;
