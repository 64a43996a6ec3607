ALTER TABLE nats_operator DROP COLUMN next_seed, DROP COLUMN next_key;
