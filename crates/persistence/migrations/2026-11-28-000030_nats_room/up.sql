-- Since when the disk of the pipes has too little room: accounts are signed so that nobody stores anything until it is over.
ALTER TABLE nats_operator ADD COLUMN closed_at timestamptz;
GRANT UPDATE (closed_at) ON nats_operator TO tidegate_platform;
