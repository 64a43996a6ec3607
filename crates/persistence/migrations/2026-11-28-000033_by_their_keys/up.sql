-- The same answers as before, by the whole keys of what is named, however few rows the planner believes there are: after a
-- burst of new sources it read every stream of an organization for each message. Only replaces: a control plane of the version
-- before goes on working beside this one.
CREATE OR REPLACE FUNCTION auth_writable_pipes(orgs uuid[], people uuid[], handles text[], names text[], needs text[])
RETURNS TABLE (place integer, source_id uuid, created_by uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 16 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    -- OFFSET keeps each of these from becoming a join, which could leave a part of its key out.
    RETURN QUERY SELECT w.place::integer, f.*
    FROM unnest(orgs, people, handles, names, needs) WITH ORDINALITY AS w (org, person, handle, name, needed, place)
    CROSS JOIN LATERAL (
        SELECT s.id, s.created_by FROM sources s
        WHERE s.org_id = w.org AND s.handle = w.handle
          AND EXISTS (SELECT FROM pipe_streams p WHERE p.org_id = w.org AND p.source_id = s.id AND p.pipe = w.name
                      AND p.incarnation IS NOT NULL OFFSET 0)
          AND CASE WHEN s.created_by = w.person OR w.needed = 'members' THEN true
                   WHEN w.needed IS NULL THEN false
                   ELSE EXISTS (SELECT 1 FROM source_rights(w.org, w.person) r WHERE r.source_id = s.id AND r.allows = w.needed) END
          AND NOT EXISTS (SELECT FROM pipe_operations o WHERE o.org_id = w.org AND o.status = 'pending'
                          AND o.topic = replace(s.id::text, '-', '') || '_' || w.name OFFSET 0)
        LIMIT 1) f;
END
$$;
