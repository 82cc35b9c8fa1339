#!/bin/sh
# Makes the app registrations with the Azure CLI, for those who can't deploy them with Bicep; safe to repeat.
#
#   az login --tenant TENANT
#   infra/entra/register.sh [name]                             before the deployment: prints the client ids
#   infra/entra/register.sh [name] SERVICE_URI PRINCIPAL_ID    after it: adds what needs the service
#
# name          goes before the display names; default acs-auth
# SERVICE_URI   SERVICE_API_URI of the deployment
# PRINCIPAL_ID  the managed identity's principal id: az identity show --query principalId
#
# GRAPH_STORE=true asks for the permission with which the graph store keeps mappings on the caller.
# REDIRECT_URI is where the browser client returns to; default http://localhost:3000/
set -eu

name=${1:-acs-auth}
service_uri=${2:-}
principal_id=${3:-}
redirect_uri=${REDIRECT_URI:-http://localhost:3000/}

graph=00000003-0000-0000-c000-000000000000
user_read_write=b4e74841-8e56-480b-be8b-910348b18b4c
acs=1fd5118e-2576-4263-8130-9503064c837a
teams_manage_calls=de8ec1df-066a-4817-bc5d-9a985b986262
teams_manage_chats=6290af7f-b407-49f9-92d5-bf584fdc4019

# The client id of the registration with this display name, which is made if there is none.
registration() {
    id=$(az ad app list --filter "displayName eq '$1'" --query '[].appId' --output tsv)
    if [ "$(echo "$id" | wc -w)" -gt 1 ]; then
        echo "Several registrations are called $1; choose another name." >&2
        exit 1
    fi
    if [ -z "$id" ]; then
        id=$(az ad app create --display-name "$1" --sign-in-audience AzureADMyOrg --query appId --output tsv)
    fi
    az ad sp show --id "$id" --output none 2>/dev/null || az ad sp create --id "$id" --output none
    echo "$id"
}

# Changes a registration: its client id, the change in JSON.
change() {
    az rest --method PATCH --uri "https://graph.microsoft.com/v1.0/applications(appId='$1')" \
        --headers Content-Type=application/json --body "$2" --output none
}

api=$(registration "$name-api")
browser=$(registration "$name-browser")
az ad sp show --id "$acs" --output none 2>/dev/null || az ad sp create --id "$acs" --output none

# An existing scope keeps its id: a scope can be neither removed nor replaced while it is enabled.
scope=$(az ad app show --id "$api" --query "api.oauth2PermissionScopes[?value=='access_as_user'].id" --output tsv)
if [ -z "$scope" ]; then
    scope=$(python3 -c 'import uuid; print(uuid.uuid4())')
    # xms_cc tells whether the client can answer a claims challenge: without it every step-up is a 403.
    change "$api" "{\"identifierUris\": [\"api://$api\"], \"optionalClaims\": {\"accessToken\": [{\"name\": \"xms_cc\"}]}, \"api\": {\"requestedAccessTokenVersion\": 2,
        \"oauth2PermissionScopes\": [{\"id\": \"$scope\", \"value\": \"access_as_user\", \"type\": \"User\", \"isEnabled\": true,
        \"adminConsentDisplayName\": \"Get ACS tokens for the signed-in user\",
        \"adminConsentDescription\": \"Lets the app get the signed-in user's own identity and access tokens of Azure Communication Services.\",
        \"userConsentDisplayName\": \"Get ACS tokens for you\",
        \"userConsentDescription\": \"Lets the app get your own identity and access tokens of Azure Communication Services.\"}]}}"
fi
change "$api" "{\"api\": {\"preAuthorizedApplications\": [{\"appId\": \"$browser\", \"delegatedPermissionIds\": [\"$scope\"]}]}}"
if [ "${GRAPH_STORE:-false}" = true ]; then
    change "$api" "{\"requiredResourceAccess\": [{\"resourceAppId\": \"$graph\",
        \"resourceAccess\": [{\"id\": \"$user_read_write\", \"type\": \"Scope\"}]}]}"
fi

redirect_uris="\"$redirect_uri\""
if [ -n "$service_uri" ]; then
    redirect_uris="$redirect_uris, \"$service_uri/docs/oauth2-redirect.html\""
fi
change "$browser" "{\"spa\": {\"redirectUris\": [$redirect_uris]}, \"requiredResourceAccess\": [
    {\"resourceAppId\": \"$api\", \"resourceAccess\": [{\"id\": \"$scope\", \"type\": \"Scope\"}]},
    {\"resourceAppId\": \"$acs\", \"resourceAccess\": [{\"id\": \"$teams_manage_calls\", \"type\": \"Scope\"},
                                                  {\"id\": \"$teams_manage_chats\", \"type\": \"Scope\"}]}]}"

# In place of a client secret: the managed identity signs in as the API.
if [ -n "$principal_id" ]; then
    known=$(az ad app federated-credential list --id "$api" --query "[?name=='managed-identity'].subject" --output tsv)
    if [ -z "$known" ]; then
        tenant=$(az account show --query tenantId --output tsv)
        authority=$(az cloud show --query endpoints.activeDirectory --output tsv)
        az ad app federated-credential create --id "$api" --output none --parameters "{\"name\": \"managed-identity\",
            \"issuer\": \"${authority%/}/$tenant/v2.0\", \"subject\": \"$principal_id\", \"audiences\": [\"api://AzureADTokenExchange\"]}"
    elif [ "$known" != "$principal_id" ]; then
        echo "The credential managed-identity of $name-api is another identity's ($known); delete it first." >&2
        exit 1
    fi
fi

echo "API_CLIENT_ID=$api"
echo "BROWSER_CLIENT_ID=$browser"
