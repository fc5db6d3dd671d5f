"""A CloudFormation template that makes the key, its alias and its policy.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-kms-key.html
"""

from keystow_service.keys.key_policy.statements import Grant, new_key_policy, written


def render(grant: Grant) -> str:
    """JSON, which has no quoting of its own to get wrong. A deleted stack leaves key and alias alone."""
    region = grant.place.region
    kept = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"The KMS key that protects the backups of {grant.tenant_id}, in {region}",
        "Rules": {
            "Region": {
                "Assertions": [
                    {
                        "Assert": {"Fn::Equals": [{"Ref": "AWS::Region"}, region]},
                        "AssertDescription": f"The key must be in {region}, as the backups are",
                    }
                ]
            }
        },
        "Resources": {
            "Key": {
                "Type": "AWS::KMS::Key",
                **kept,
                "Properties": {
                    "Description": grant.description,
                    "KeySpec": "SYMMETRIC_DEFAULT",
                    "KeyUsage": "ENCRYPT_DECRYPT",
                    "MultiRegion": False,
                    "EnableKeyRotation": True,
                    "PendingWindowInDays": 30,
                    "KeyPolicy": new_key_policy(grant, {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}),
                },
            },
            "Alias": {
                "Type": "AWS::KMS::Alias",
                **kept,
                "Properties": {"AliasName": grant.alias, "TargetKeyId": {"Ref": "Key"}},
            },
        },
        "Outputs": {
            "KeyArn": {
                "Description": f"To register {grant.tenant_id} with",
                "Value": {"Fn::GetAtt": ["Key", "Arn"]},
            }
        },
    }
    return written(template) + "\n"
