-- The key that is to sign accounts next: made and told to every server before anything is signed with it.
ALTER TABLE nats_operator
    ADD COLUMN next_key  text,
    ADD COLUMN next_seed bytea,
    ADD CHECK ((next_key IS NULL) = (next_seed IS NULL));
GRANT UPDATE (next_key, next_seed) ON nats_operator TO tidegate_platform;
