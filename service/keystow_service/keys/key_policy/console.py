"""The steps in the AWS console, for a new key and for one that exists."""

import json

from keystow_service.keys.key_policy.statements import Grant, provider_statements


def render(grant: Grant) -> str:
    """Plain text."""
    region = grant.place.region
    # As they stand in the console's editor, between the brackets of "Statement".
    statements = json.dumps(provider_statements(grant), indent=4)[2:-2]
    return f"""\
A KMS key that protects the backups of {grant.tenant_id}, in {region}

Create the key (with a key that exists, begin at step 5):

1. Sign in to the AWS account that is to own the key, choose the region {region}, and open
   Key Management Service > Customer managed keys > Create key.
2. Key type: Symmetric. Key usage: Encrypt and decrypt. Under Advanced options keep KMS and Single-Region key.
3. Alias: {grant.alias.removeprefix("alias/")}
4. Key administrators: your own. Key users: none, and no other AWS accounts either: that would grant far more than the
   service needs. Then finish.

Let the service use it, for {grant.tenant_id} alone:

5. Open the key > Key policy > Switch to policy view > Edit.
6. Put these two statements at the end of the list "Statement", after a comma. Change nothing else, and save.

{statements}

7. Under Key rotation turn on automatic rotation. (Old backups stay readable.)
8. Copy the key's ARN, which begins with arn:aws:kms:{region}: and ends with key/ and the key's id, and register
   {grant.tenant_id} with it. A new policy takes up to five minutes to work everywhere.

To stop backup and restore at any time, disable the key; to resume them, enable it. Once the key is deleted, the backups
cannot be read again by anybody.
"""
